"""The systems that are compared: each a process of its own that says `ready`, and works until it is told to stop."""
