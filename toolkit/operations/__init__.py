"""Reads and changes that an operator makes in one service's database, whether the service runs or not."""
