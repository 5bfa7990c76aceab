"""Compare a database's tables with those that the code declares: an older release may have made them."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, MetaData, Table, UniqueConstraint, inspect
from sqlalchemy.engine import Inspector
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from toolkit.doctor.facts import Lack
from toolkit.persistence.schema import metadata, schema_for


def lacks(connection: Connection, own: MetaData | None) -> tuple[Lack, ...]:
    """Return what the toolkit's tables, and the service's own, lack."""
    inspector = inspect(connection)
    tables = [*metadata.sorted_tables, *(own.sorted_tables if own is not None else ())]
    present = [
        table for table in tables if inspector.has_table(table.name, schema=schema_for(table, connection.dialect))
    ]
    missing = [table for table in tables if table not in present]
    return (
        *(Lack("table", each.name, each.name, _sql(CreateTable(each), connection)) for each in missing),
        *(lack for table in present for lack in _lacks_of(inspector, table, connection)),
    )


def _lacks_of(inspector: Inspector, table: Table, connection: Connection) -> Iterator[Lack]:
    schema, place = schema_for(table, connection.dialect), connection.dialect.identifier_preparer.format_table(table)
    columns = {column["name"] for column in inspector.get_columns(table.name, schema=schema)}
    for column in table.columns:
        if column.name not in columns:
            statement = f"ALTER TABLE {place} ADD COLUMN {_sql(CreateColumn(column), connection)}"
            yield Lack("column", table.name, column.name, statement)
    indexes = {index["name"] for index in inspector.get_indexes(table.name, schema=schema)}
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        if index.name not in indexes:
            yield Lack("index", table.name, str(index.name), _sql(CreateIndex(index), connection))
    yield from _missing_keys(inspector, table, schema=schema, place=place)


def _missing_keys(inspector: Inspector, table: Table, *, schema: str | None, place: str) -> Iterator[Lack]:
    """Yield the missing unique keys, in whatever order: a copied table may have all columns, and no fence."""
    unique: set[frozenset[str | None]] = {
        frozenset(key["column_names"]) for key in inspector.get_unique_constraints(table.name, schema=schema)
    }
    unique |= {
        frozenset(index["column_names"])
        for index in inspector.get_indexes(table.name, schema=schema)
        if index["unique"]
    }
    unique.add(frozenset(inspector.get_pk_constraint(table.name, schema=schema)["constrained_columns"]))
    for key in table.constraints:
        columns = tuple(column.name for column in key.columns) if isinstance(key, UniqueConstraint) else ()
        if columns and frozenset(columns) not in unique:
            name = str(key.name or f"{table.name}_key")
            statement = f"CREATE UNIQUE INDEX {name} ON {place} ({', '.join(columns)})"
            yield Lack("unique key", table.name, name, statement)
    primary = tuple(column.name for column in table.primary_key)
    if frozenset(primary) not in unique:
        statement = f"ALTER TABLE {place} ADD PRIMARY KEY ({', '.join(primary)})"
        yield Lack("unique key", table.name, "primary key", statement)


def _sql(statement: CreateTable | CreateColumn | CreateIndex, connection: Connection) -> str:
    return " ".join(str(statement.compile(dialect=connection.dialect)).split())
