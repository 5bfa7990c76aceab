"""The service that waits for an answer."""
