"""Alembic runs this module to apply the revisions, or to print them as SQL."""

from __future__ import annotations

from typing import Any

from alembic import context

from toolkit.persistence.schema_version import version

attributes = context.config.attributes
options: dict[str, Any] = {"version_table": version.name, "version_table_schema": attributes["schema"]}
if context.is_offline_mode():
    context.configure(dialect_name=attributes["dialect"], literal_binds=True, transactional_ddl=False, **options)
else:
    context.configure(connection=attributes["connection"], transactional_ddl=True, **options)

with context.begin_transaction():
    context.run_migrations()
