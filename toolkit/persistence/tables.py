"""All tables of the toolkit, and their creation: each module that declares one is imported here."""

from __future__ import annotations

from sqlalchemy import inspect
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateSchema

from toolkit.errors import SchemaVersionError
from toolkit.persistence import (
    audit_log,
    dead_letters,
    known_bindings,
    known_steps,
    outbox,
    overdue_search,
    overdue_steps,
    pruning_watermark,
    saga_log,
    saga_waits,
    suspect_messages,
)
from toolkit.persistence.schema import check_columns, metadata, place_of, schema_of
from toolkit.persistence.schema_version import VersionState, check_version, read_version, record_version

#: Naming the modules declares their tables.
_DECLARED = (
    *(audit_log, dead_letters, known_bindings, known_steps, outbox, overdue_search, overdue_steps, pruning_watermark),
    *(saga_log, saga_waits, suspect_messages),
)


def prepare_tables(connection: Connection, *, service: str, may_create: bool) -> None:
    """Create the toolkit's tables where they are missing, and check that they are those of this release.

    Raises:
        SchemaVersionError: they are not, or they are missing and `may_create` is false.
        SettingsError: an existing table lacks a column.
    """
    found = read_version(connection)
    check_version(found, place=place_of(connection), service=service)
    if found.state is VersionState.MISSING and not may_create:
        raise SchemaVersionError(
            f"there are no tables of the toolkit in {place_of(connection)}, and SAGA_CREATE_TABLES=false: run `saga db "
            f"upgrade {service}` with a login that may create tables"
        )
    if may_create:
        create_or_complete(connection)
    else:
        check_columns(connection, metadata)


def create_or_complete(connection: Connection) -> None:
    """Create the toolkit's tables where they are missing, check them, and record this release's version.

    Raises:
        SettingsError: an existing table lacks a column.
    """
    schema, inspector = schema_of(connection.dialect), inspect(connection)
    if schema is not None and not inspector.has_schema(schema):
        connection.execute(CreateSchema(schema))
    existing = set(inspector.get_table_names(schema=schema))
    missing = [table for table in metadata.sorted_tables if table.name not in existing]
    metadata.create_all(connection, missing, checkfirst=False)  # SQLAlchemy would look in the default schema
    check_columns(connection, metadata)
    if read_version(connection).state is not VersionState.CURRENT:
        record_version(connection)
