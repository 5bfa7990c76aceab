"""Static rules for choreographies."""
