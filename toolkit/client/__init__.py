"""Services from outside: over their HTTP API, or in their databases."""
