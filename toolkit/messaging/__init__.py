"""What goes over the wire: envelopes, their encoding and decoding, and the AsyncAPI document that describes them."""
