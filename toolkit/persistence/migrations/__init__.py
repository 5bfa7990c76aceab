"""The revisions of the toolkit's tables, for Alembic; `saga db` runs them."""
