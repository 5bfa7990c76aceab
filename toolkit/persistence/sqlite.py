"""The engine for SQLite: durable commits, and one writer at a time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Dialect, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_

from toolkit.persistence.driver_errors import take_values_out
from toolkit.persistence.own_connections import OWN, listen_to_errors
from toolkit.persistence.sqlite_connection import SqliteConnection, sqlite_connection
from toolkit.persistence.sqlite_files import make_private, make_room_for

#: How long SQLite waits for another process's write lock before it reports that it is busy.
_BUSY_TIMEOUT_MS = 10_000


def sqlite_engine(
    url: str | URL,
    *,
    configure: Callable[[Any, ConnectionPoolEntry], None] | None = None,
    **options: Any,
) -> AsyncEngine:
    """Return an engine that loses neither updates (IMMEDIATE) nor commits at a power cut (FULL).

    `configure` is called with each new connection, before its own settings; `options` are SQLAlchemy's.
    """
    place = make_url(url)
    make_room_for(place)
    engine = create_async_engine(
        place.set(drivername="sqlite+aiosqlite"), hide_parameters=True, execution_options={OWN: True}, **options
    )
    listen_to_errors(engine, take_values_out)
    if configure:
        event.listen(engine.sync_engine, "connect", configure)

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(dialect: Dialect, _: Any, arguments: Any, parameters: Any) -> SqliteConnection:
        make_private(place.database)
        made: Any = dialect.connect(*arguments, **parameters)
        return SqliteConnection(made.dbapi, made.driver_connection)

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # else the driver begins transactions itself, too late
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        # If several processes open a new file at once, one makes it WAL; the others' pragma fails without waiting.
        with suppress(sqlite3.OperationalError):
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    _one_writer_at_a_time(engine)
    return engine


def _one_writer_at_a_time(engine: AsyncEngine) -> None:
    """Begin transactions with the write lock, and queue for it here: SQLite would poll, unfairly, and give up."""
    writer = asyncio.Lock()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        statement = "BEGIN"
        if not connection.get_execution_options().get("reading"):
            await_(writer.acquire())
            connection.info["writes"] = True
            statement = "BEGIN IMMEDIATE"
        sqlite_connection(connection).begin(statement)

    def release(_: Any, record: Any, *__: Any) -> None:
        if record.info.pop("writes", False):
            writer.release()

    def abandon(connection: Any, *_: Any) -> None:
        # A connection that is interrupted within a statement would hold the write lock until garbage collection.
        with suppress(ValueError, sqlite3.ProgrammingError):  # already closed
            driver = connection.driver_connection
            driver._conn.interrupt()
            driver._tx.put_nowait((None, driver._conn.rollback))

    event.listen(engine.sync_engine, "invalidate", abandon)
    # After its transaction a connection returns to the pool or is discarded; either way the next writer may begin.
    event.listen(engine.sync_engine, "checkin", release)
    event.listen(engine.sync_engine, "invalidate", release)
