"""A database as earlier releases left it: the toolkit's tables of a former revision."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import Connection

from toolkit.persistence.database import Database
from toolkit.persistence.migrations.versions.r0002_prefix import _INDEXES, _TABLES


async def create_first_tables(database: Database) -> None:
    """Create the tables of the releases before versions, without a recorded version."""
    async with database.engine.begin() as connection:
        await connection.run_sync(_run_revisions, "0001")
        await connection.execute(text("DROP TABLE saga_schema_version"))


async def take_prefixes_away(database: Database) -> None:
    """Give the tables of this release, and their rows, the names that they had before revision 0002."""
    async with database.engine.begin() as connection:
        await connection.execute(text("DROP TABLE saga_schema_version"))
        for name, _, _ in _INDEXES.values():
            await connection.execute(text(f"DROP INDEX {name}"))
        for table in _TABLES:
            await connection.execute(text(f"ALTER TABLE saga_{table} RENAME TO {table}"))
        for former, (_, table, column) in _INDEXES.items():
            await connection.execute(text(f"CREATE INDEX {former} ON {table.removeprefix('saga_')} ({column})"))


def _run_revisions(connection: Connection, until: str) -> None:
    configuration = Config(attributes={"connection": connection})
    configuration.set_main_option("script_location", "toolkit.persistence:migrations")
    command.upgrade(configuration, until)
