"""Each table and index of the toolkit begins with `saga_`, so that a team's own table `audit` is no clash."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0002", "0001"

#: The tables without a prefix; `saga_log` has one.
_TABLES = (
    *("outbox", "dead_letters", "suspects", "overdue", "waits", "watched", "audit", "pruned", "known_steps"),
    "bindings",
)
#: By their former names, the indexes with their new names, tables and columns.
_INDEXES = {
    "outbox_by_due": ("saga_outbox_by_due", "saga_outbox", "due_at"),
    "dead_letters_by_saga": ("saga_dead_letters_by_saga", "saga_dead_letters", "saga_id"),
    "dead_letters_by_time": ("saga_dead_letters_by_time", "saga_dead_letters", "last_at"),
    "overdue_by_saga": ("saga_overdue_by_saga", "saga_overdue", "saga_id"),
    "ix_overdue_next_at": ("saga_overdue_by_next", "saga_overdue", "next_at"),
    "ix_waits_until": ("saga_waits_by_until", "saga_waits", "until"),
    "audit_by_time": ("saga_audit_by_time", "saga_audit", "at"),
}


def upgrade() -> None:
    """Rename the tables, the indexes and the keys."""
    schema = op.get_context().version_table_schema
    for table in _TABLES:
        op.rename_table(table, f"saga_{table}", schema=schema)
    if op.get_context().dialect.name == "sqlite":
        _replace_indexes()
    else:
        _rename_indexes(schema)


def _replace_indexes() -> None:
    """Create the indexes under their new names: SQLite renames none, and renames those of keys by itself."""
    for former, (name, table, column) in _INDEXES.items():
        op.drop_index(former, if_exists=True)
        op.create_index(name, table, [column], if_not_exists=True)


def _rename_indexes(schema: str | None) -> None:
    """Rename the indexes, those of the keys included, and the sequences; an earlier release may have left one out."""
    names = {former: name for former, (name, _, _) in _INDEXES.items()}
    names |= {f"{table}_pkey": f"saga_{table}_pkey" for table in _TABLES}
    names["dead_letters_fingerprint_key"] = "saga_dead_letters_fingerprint_key"
    place = f'"{schema}".' if schema else ""
    for former, name in names.items():
        op.execute(f"ALTER INDEX IF EXISTS {place}{former} RENAME TO {name}")
    for table in ("pruned", "watched"):
        op.execute(f"ALTER SEQUENCE IF EXISTS {place}{table}_id_seq RENAME TO saga_{table}_id_seq")
