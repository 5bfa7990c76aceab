"""Messages on the wire: envelopes, decoding, senders' rights, and the AsyncAPI document."""
