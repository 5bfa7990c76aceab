"""Services from outside: over their HTTP APIs, or in their databases."""
