"""The statements that a database's driver executes, by SQLAlchemy's hand or past it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor as PostgresCursor
from sqlalchemy.util import await_only

from toolkit.persistence.database import Database

Recorded = list[tuple[str, tuple[Any, ...]]]


@contextmanager
def recorded(database: Database) -> Iterator[Recorded]:
    """Record the statements that are executed inside the block.

    On PostgreSQL each comes with one set of parameters; on SQLite it contains them as literals.
    """
    statements: Recorded = []
    with _on_sqlite(database, statements) if database.is_sqlite else _on_postgres(statements):
        yield statements


@contextmanager
def _on_postgres(statements: Recorded) -> Iterator[None]:
    one, many = PostgresCursor.execute, PostgresCursor.executemany

    def execute(cursor: PostgresCursor, operation: str, parameters: Any = None) -> Any:
        statements.append((operation, tuple(parameters or ())))
        return one(cursor, operation, parameters)

    def executemany(cursor: PostgresCursor, operation: str, parameters: Any) -> Any:
        statements.append((operation, tuple(parameters[0])))
        return many(cursor, operation, parameters)

    PostgresCursor.execute, PostgresCursor.executemany = execute, executemany  # type: ignore[method-assign]
    try:
        yield
    finally:
        PostgresCursor.execute, PostgresCursor.executemany = one, many  # type: ignore[method-assign]


@contextmanager
def _on_sqlite(database: Database, statements: Recorded) -> Iterator[None]:
    def start(connection: Any, *_: Any) -> None:
        await_only(connection.driver_connection.set_trace_callback(lambda each: statements.append((each, ()))))

    def stop(connection: Any, *_: Any) -> None:
        if connection is not None:  # it is None once it was invalidated
            await_only(connection.driver_connection.set_trace_callback(None))

    engine = database.engine.sync_engine
    event.listen(engine, "checkout", start)
    event.listen(engine, "checkin", stop)
    try:
        yield
    finally:
        event.remove(engine, "checkout", start)
        event.remove(engine, "checkin", stop)
