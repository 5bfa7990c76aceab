"""Checks declared sagas: static rules, and an explorer of every interleaving."""
