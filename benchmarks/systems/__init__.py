"""The systems that are compared: each a process of its own that prints `ready`, and works until SIGTERM."""
