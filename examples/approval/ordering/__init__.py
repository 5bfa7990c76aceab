"""Ordering places the order for an approved purchase."""
