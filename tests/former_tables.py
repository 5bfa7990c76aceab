"""A database as earlier releases left it: the toolkit's tables of a former revision."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import Connection

from toolkit.persistence.database import Database
from toolkit.persistence.migrations.versions.r0002_prefix import _INDEXES, _TABLES
from toolkit.persistence.schema import schema_of, schema_prefix


async def create_first_tables(database: Database) -> None:
    """Create the tables of the releases before versions, without a recorded version."""
    async with database.engine.begin() as connection:
        await connection.run_sync(_run_revisions, "0001")
        await connection.execute(text("DROP TABLE saga_schema_version"))


async def take_prefixes_away(database: Database) -> None:
    """Give the tables of this release, and their rows, the names that they had before revision 0002."""
    async with database.engine.begin() as connection:
        place = schema_prefix(connection.dialect)
        former_tables = [
            (former, table.removeprefix("saga_"), column) for former, (_, table, column) in _INDEXES.items()
        ]
        for statement in (
            f"DROP TABLE {place}saga_schema_version",
            *(f"DROP INDEX {place}{name}" for name, _, _ in _INDEXES.values()),
            *(f"ALTER TABLE {place}saga_{table} RENAME TO {table}" for table in _TABLES),
            *(f"CREATE INDEX {former} ON {place}{table} ({column})" for former, table, column in former_tables),
        ):
            await connection.execute(text(statement))


def _run_revisions(connection: Connection, until: str) -> None:
    configuration = Config(attributes={"connection": connection, "schema": schema_of(connection.dialect)})
    configuration.set_main_option("script_location", "toolkit.persistence:migrations")
    command.upgrade(configuration, until)
