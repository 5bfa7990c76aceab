"""The clearing service has a clearing house, outside, settle each transfer between the banks."""
