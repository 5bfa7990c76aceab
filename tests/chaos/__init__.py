"""Everything at once: thousands of orders while processes, broker, database and network fail by a seed."""
