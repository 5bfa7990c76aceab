"""The rules of the protocol, as pure functions: which entry may follow which, and what holds of every saga."""
