"""For a team's own Alembic: its autogenerate leaves the toolkit's tables alone, which `saga db upgrade` keeps."""

from __future__ import annotations

from sqlalchemy import Table
from sqlalchemy.schema import SchemaItem

from toolkit.persistence import tables
from toolkit.persistence.schema import metadata

#: Naming the module declares all tables of the toolkit.
_DECLARING = tables


def include(item: SchemaItem, name: str | None, kind: str, reflected: bool, compare_to: SchemaItem | None) -> bool:
    """Whether autogenerate compares this object: it passes over the toolkit's tables, in any schema.

    For `context.configure(include_object=include)` in a team's env.py. A hook of the team's own calls it:
    `return include(item, name, kind, reflected, compare_to) and …`. It holds whether the toolkit's metadata is in
    `target_metadata` or not.
    """
    table = item if isinstance(item, Table) else getattr(item, "table", None)
    return getattr(table, "name", None) not in metadata.tables
