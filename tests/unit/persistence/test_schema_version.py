"""A service starts on the tables of its own release only, and names the command that mends others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Integer, MetaData, Table, inspect, text
from sqlalchemy.engine import Connection

from tests.example_sagas.library_branch import RecordingPublisher
from tests.example_sagas.loans import Clerk, library
from tests.former_tables import create_first_tables
from tests.service_databases import database_url
from tests.unit.persistence.faults import change
from toolkit.clock import SystemClock
from toolkit.configuration.settings import Settings
from toolkit.errors import SchemaVersionError, SettingsError
from toolkit.persistence.database import Database
from toolkit.persistence.migrations import revisions
from toolkit.persistence.schema_version import HEAD, REVISIONS, VersionState
from toolkit.runtime.service_runtime import ServiceRuntime

__all__ = ["database_url"]


@pytest.fixture
async def empty(database_url: str) -> AsyncIterator[Database]:
    """A database without any table."""
    database = Database(database_url)
    yield database
    await database.close()


async def start(database: Database, *, creates: bool = True) -> None:
    """Prepare the library's start on this database, and stop."""
    settings = Settings(database_url=database.url, create_tables=creates)
    runtime = ServiceRuntime(library(Clerk()), settings, RecordingPublisher(), clock=SystemClock())
    try:
        await runtime.prepare()
    finally:
        await runtime.stop()


def test_the_revisions_are_those_of_alembic() -> None:
    scripts = ScriptDirectory(str(Path(revisions.__file__).parent))

    assert [each.revision for each in reversed(list(scripts.walk_revisions()))] == list(REVISIONS)


async def test_a_first_start_records_the_version(empty: Database) -> None:
    await start(empty)

    found = await revisions.current(empty)
    assert (found.number, found.state) == (HEAD, VersionState.CURRENT)
    await start(empty)  # and the next start finds it


async def test_tables_without_a_prefix_stop_the_start(empty: Database) -> None:
    await create_first_tables(empty)

    with pytest.raises(SchemaVersionError, match="version 0001, and this release needs 0002") as caught:
        await start(empty)

    assert "`saga db upgrade library`" in str(caught.value)
    assert "saga_outbox" not in await names(empty)


async def test_an_earlier_version_stops_the_start(empty: Database) -> None:
    await start(empty)
    await change(empty, "UPDATE saga_schema_version SET version_num = '0001'")

    with pytest.raises(SchemaVersionError, match="run `saga db upgrade library`"):
        await start(empty)


async def test_a_newer_version_stops_the_start(empty: Database) -> None:
    await start(empty)
    await change(empty, "UPDATE saga_schema_version SET version_num = '0099'")

    with pytest.raises(SchemaVersionError, match=r"they have version 0099, and this release knows 0001 to"):
        await start(empty)
    with pytest.raises(SchemaVersionError, match="a newer release made"):
        await revisions.upgrade(empty, service="library")


async def test_an_upgrade_records_tables_without_a_version(empty: Database) -> None:
    await start(empty)
    await change(empty, "DELETE FROM saga_schema_version")

    with pytest.raises(SchemaVersionError, match=f"which compares them with this release and records {HEAD}"):
        await start(empty)
    found = await revisions.upgrade(empty, service="library")

    assert found.state is VersionState.UNRECORDED
    await start(empty)


async def test_tables_are_not_created_where_that_is_forbidden(empty: Database) -> None:
    with pytest.raises(SchemaVersionError, match="run `saga db upgrade library` with a login that may create tables"):
        await start(empty, creates=False)
    assert await names(empty) == set()

    await revisions.upgrade(empty, service="library")
    with pytest.raises(SettingsError, match="there is no table shelves"):
        await start(empty, creates=False)

    await start(empty)
    await start(empty, creates=False)


async def test_an_upgrade_makes_the_tables_of_a_first_start(empty: Database) -> None:
    await empty.create_tables()
    created = await described(empty)
    await change(empty, *(f"DROP TABLE {each}" for each in await names(empty)))
    await create_first_tables(empty)

    found = await revisions.upgrade(empty, service="library")

    assert (found.number, found.state) == ("0001", VersionState.OUTDATED)
    assert await described(empty) == created


async def test_an_upgrade_leaves_a_teams_table_alone(empty: Database) -> None:
    own = MetaData()
    Table("audit", own, Column("id", Integer, primary_key=True))
    async with empty.engine.begin() as connection:
        await connection.run_sync(own.create_all)

    await revisions.upgrade(empty, service="library")
    await start(empty)

    assert {"audit", "saga_audit"} <= await names(empty)


async def test_an_upgrade_that_fails_changes_nothing(empty: Database) -> None:
    await create_first_tables(empty)
    await change(empty, "ALTER TABLE saga_log DROP COLUMN event_by", "DROP TABLE waits")
    before = await described(empty)

    with pytest.raises(SettingsError, match=r"the table saga_log of .* has no event_by; add these columns"):
        await revisions.upgrade(empty, service="library")

    assert await described(empty) == before


async def test_an_upgrade_completes_what_earlier_starts_did_not_make(empty: Database) -> None:
    await create_first_tables(empty)
    await change(empty, "DROP TABLE waits", "DROP INDEX saga_log_gathering", "DROP INDEX outbox_by_due")

    await revisions.upgrade(empty, service="library")
    await start(empty)

    assert "saga_waits" in await names(empty)


async def names(database: Database) -> set[str]:
    """Return the tables in a database."""
    async with database.reading() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


async def described(database: Database) -> dict[str, Any]:
    """Return all that the database knows of its tables, apart from the order."""
    async with database.reading() as connection:
        return await connection.run_sync(_described)


def _described_index(index: Any) -> tuple[str, str, bool, str]:
    conditions = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return index["name"], str(index["column_names"]), bool(index["unique"]), str(conditions)


def _described(connection: Connection) -> dict[str, Any]:
    inspector = inspect(connection)
    tables = {
        table: {
            "columns": {each["name"]: (str(each["type"]), each["nullable"]) for each in inspector.get_columns(table)},
            "key": inspector.get_pk_constraint(table),
            "unique": sorted(map(str, inspector.get_unique_constraints(table))),
            "indexes": sorted(map(_described_index, inspector.get_indexes(table))),
        }
        for table in inspector.get_table_names()
    }
    if connection.dialect.name == "sqlite":
        return tables
    columns = "SELECT table_name, column_name, collation_name FROM information_schema.columns"
    collations = text(f"{columns} WHERE collation_name IS NOT NULL")
    return tables | {
        "sequences": sorted(inspector.get_sequence_names()),
        "collations": sorted(map(tuple, connection.execute(collations).all())),
    }
