"""One file for each command of `saga`."""
