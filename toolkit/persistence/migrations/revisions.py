"""Applying the revisions to a database, and printing them as SQL for a database administrator."""

from __future__ import annotations

import io
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import ClauseElement, insert
from sqlalchemy.engine import URL, Connection, Dialect, make_url
from sqlalchemy.schema import CreateIndex, CreateSchema, CreateTable

from toolkit.configuration.server_urls import schema_in
from toolkit.errors import SchemaVersionError
from toolkit.persistence.database import Database
from toolkit.persistence.schema import lock_tables, metadata, place_of, schema_of, use_schema
from toolkit.persistence.schema_version import (
    HEAD,
    REVISIONS,
    SchemaVersion,
    VersionState,
    check_version,
    read_version,
    version,
)
from toolkit.persistence.tables import create_or_complete

#: The package with Alembic's environment and the revisions.
_SCRIPTS = "toolkit.persistence:migrations"


async def upgrade(database: Database, *, service: str) -> SchemaVersion:
    """Bring the toolkit's tables to this release, in one transaction; return the version that they had.

    Missing tables are created, and tables without a recorded version are compared with this release.

    Raises:
        SchemaVersionError: a newer release made the tables.
        SettingsError: a table lacks a column that no revision adds.
    """
    async with database.engine.begin() as connection:
        await lock_tables(connection)
        return await connection.run_sync(_upgrade, service)


async def current(database: Database) -> SchemaVersion:
    """Return the version of the toolkit's tables."""
    async with database.reading() as connection:
        return await connection.run_sync(read_version)


def sql_of(url: str, *, start: str | None) -> str:
    """Return the SQL that leads from a version, or from a database without the tables, to this release.

    Raises:
        SchemaVersionError: there is no such version.
    """
    if start is not None and start not in REVISIONS:
        raise SchemaVersionError(f"there is no version {start!r} of the tables; there are: {', '.join(REVISIONS)}")
    dialect = _dialect_of(make_url(url))
    statements = _creation(dialect) if start is None else _steps(dialect, start)
    return f"BEGIN;\n\n{statements.strip()}\n\nCOMMIT;"


def _upgrade(connection: Connection, service: str) -> SchemaVersion:
    found = read_version(connection)
    if found.state is VersionState.NEWER:
        check_version(found, place=place_of(connection), service=service)
    if found.state is VersionState.OUTDATED:
        command.upgrade(_configuration(connection=connection, schema=schema_of(connection.dialect)), HEAD)
    create_or_complete(connection)
    return found


def _dialect_of(url: URL) -> Dialect:
    schema = None
    if url.drivername == "postgresql":
        url, schema = schema_in(url)
    dialect: Dialect = make_url(f"{url.drivername}://").get_dialect()()
    use_schema(dialect, schema)
    return dialect


def _creation(dialect: Dialect) -> str:
    """Return the statements that create all tables, and record the version."""
    schema = schema_of(dialect)
    parts: list[ClauseElement] = [CreateSchema(schema, if_not_exists=True)] if schema else []
    for table in metadata.sorted_tables:
        parts.append(CreateTable(table))
        parts += [CreateIndex(index) for index in sorted(table.indexes, key=lambda each: str(each.name))]
    return _printed(dialect, *parts, insert(version).values(version_num=HEAD))


def _steps(dialect: Dialect, start: str) -> str:
    """Return the statements of the revisions after this one."""
    output = io.StringIO()
    configuration = _configuration(dialect=dialect.name, schema=schema_of(dialect), output=output)
    command.upgrade(configuration, f"{start}:{HEAD}", sql=True)
    if start != REVISIONS[0]:
        return output.getvalue()
    # The first tables have no version yet.
    recorded = insert(version).values(version_num=start)
    return f"{_printed(dialect, CreateTable(version, if_not_exists=True), recorded)}\n\n{output.getvalue()}"


def _printed(dialect: Dialect, *parts: ClauseElement) -> str:
    texts = (str(part.compile(dialect=dialect, compile_kwargs={"literal_binds": True})).strip() for part in parts)
    return "\n\n".join(f"{text};" for text in texts)


def _configuration(*, output: io.StringIO | None = None, **attributes: Any) -> Config:
    configuration = Config(output_buffer=output, attributes=attributes)
    configuration.set_main_option("script_location", _SCRIPTS)
    return configuration
