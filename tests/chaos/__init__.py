"""Thousands of orders while processes, broker, database and network fail, by a seed."""
