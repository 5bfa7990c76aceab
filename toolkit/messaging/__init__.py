"""What goes over the wire: envelopes, decoding, who may send what, and the AsyncAPI document that describes them."""
