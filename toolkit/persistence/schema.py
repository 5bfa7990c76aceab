"""The toolkit's tables: their metadata and creation, and a column type and an insert that work on both databases."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import DateTime, MetaData, String, Table, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeDecorator

from toolkit.errors import SettingsError
from toolkit.urls import shown_url

#: The toolkit's own tables, in every service's database beside the service's tables.
metadata = MetaData()

#: One key for all services: tables are rarely created, so one service at a time may do it.
_TABLES_LOCK = 7_241_530_011

#: An id or a name in an index: PostgreSQL compares it byte by byte, as SQLite does. In the order of a language, which
#: is the default of a database, each comparison takes longer.
Key = String().with_variant(String(collation="C"), "postgresql")


class _Placement:
    """The schema of an item of the toolkit's metadata, in place of SQLAlchemy's rule; other items keep their own.

    The dialect asks it when it compiles a statement, which happens once: executing one costs nothing more. A
    `search_path` would cost each transaction a round trip behind a pooler; `schema_translate_map` would move a team's
    tables, too.
    """

    __slots__ = ("prefix", "schema")

    def __init__(self, schema: str, prefix: str) -> None:
        self.schema, self.prefix = schema, prefix

    def __call__(self, item: Any) -> str | None:
        own: str | None = item.schema
        return self.schema if own is None and getattr(item, "metadata", None) is metadata else own


def use_schema(dialect: Dialect, schema: str | None) -> None:
    """Place the toolkit's tables into this schema, for all statements of an engine with this dialect.

    Raises:
        SettingsError: the database has no schemas, or another schema is used already.
    """
    if schema is None and schema_of(dialect) is None:
        return
    if dialect.name == "sqlite":
        raise SettingsError(f"SQLite has no schemas: leave out {schema}, or name a database on PostgreSQL")
    if schema_of(dialect) not in (None, schema):
        raise SettingsError(
            f"the engine has the toolkit's tables in the schema {schema_of(dialect)} already; "
            f"create another engine for those in {schema or 'its default schema'}"
        )
    preparer = dialect.identifier_preparer
    placement: Any = _Placement(str(schema), f"{preparer.quote_schema(str(schema))}.")
    preparer.schema_for_object = placement


def schema_of(dialect: Dialect) -> str | None:
    """Return the schema of the toolkit's tables; None for the connection's default."""
    placement = dialect.identifier_preparer.schema_for_object
    return placement.schema if isinstance(placement, _Placement) else None


def schema_for(table: Table, dialect: Dialect) -> str | None:
    """Return the schema of any table, of the toolkit's or of a service's; None for the connection's default."""
    return dialect.identifier_preparer.schema_for_object(table)


def schema_prefix(dialect: Dialect) -> str:
    """Return what precedes the name of a table of the toolkit in SQL: its schema and a dot, or nothing."""
    placement = dialect.identifier_preparer.schema_for_object
    return placement.prefix if isinstance(placement, _Placement) else ""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, in UTC on both databases; SQLite stores no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a value to UTC, since SQLite drops the zone."""
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Restore the zone of a value from SQLite."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def as_stored_by_sqlite(values: Iterable[Any]) -> list[Any]:
    """Return values with their times as `UtcDateTime` stores them in SQLite."""
    return [_sqlite_text(value) if isinstance(value, datetime) else value for value in values]


def as_utc(value: datetime | str | None) -> datetime | None:
    """Return a stored time as the driver gives it, with its zone; SQLite gives a text without one."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _sqlite_text(time: datetime) -> str:
    return _utc_text(time if time.tzinfo is UTC else time.astimezone(UTC))


@lru_cache(maxsize=1000)  # the rows of a batch have few times between them
def _utc_text(time: datetime) -> str:
    return time.replace(tzinfo=None).isoformat(" ", "microseconds")


def insert_into(table: Table, connection: AsyncConnection) -> postgresql.Insert | sqlite.Insert:
    """Return an insert that supports ON CONFLICT; the SQL is the same, but SQLAlchemy has a class per database."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


async def create_tables(connection: AsyncConnection, *tables: MetaData) -> None:
    """Create the tables that are missing; replicas may do so at the same time.

    Raises:
        SettingsError: an existing table lacks a column.
    """
    await lock_tables(connection)
    for each in tables:
        await connection.run_sync(each.create_all)
        await connection.run_sync(check_columns, each)


async def lock_tables(connection: AsyncConnection) -> None:
    """Wait until no other replica creates or changes tables; the lock ends with the transaction."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TABLES_LOCK})


def check_columns(connection: Connection, tables: MetaData) -> None:
    """Detect a table of another version at the start, rather than in the middle of a saga.

    Raises:
        SettingsError: a table is missing, or lacks a column.
    """
    inspector = inspect(connection)
    for table in tables.sorted_tables:
        schema = schema_for(table, connection.dialect)
        if not inspector.has_table(table.name, schema=schema):
            raise SettingsError(f"there is no table {table.name} in {place_of(connection)}: create it")
        columns = {column["name"] for column in inspector.get_columns(table.name, schema=schema)}
        if missing := sorted(set(table.columns.keys()) - columns):
            raise SettingsError(
                f"another version created the table {table.name} of {place_of(connection)}: it has no "
                f"{', '.join(missing)}; add these columns, or name another database"
            )


def place_of(connection: Connection) -> str:
    """Return the database of a connection for an error's text."""
    schema = schema_of(connection.dialect)
    url = connection.engine.url.set(drivername=connection.dialect.name)
    return shown_url(url.update_query_dict({"schema": schema} if schema else {}).render_as_string(hide_password=False))
