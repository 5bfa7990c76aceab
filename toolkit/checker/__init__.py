"""The static rules that a choreography has to satisfy."""
