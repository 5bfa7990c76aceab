"""SQLAlchemy's connection to SQLite: one change to the driver's thread for each statement.

aiosqlite keeps a thread for each connection, and changes to it and back for a cursor, a statement, its rows and the
cursor's end. Here a statement is executed with its rows, a transaction begins along with its first statement, and one
that wrote nothing ends without a change. Within the thread a statement is executed at once.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from threading import get_ident
from typing import Any, TypeVar

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection, AsyncAdapt_aiosqlite_cursor
from sqlalchemy.engine import Connection
from sqlalchemy.util import EMPTY_DICT, await_

#: The texts of aiosqlite's errors for a connection that is closed: it raises a ValueError.
_CLOSED = ("no active connection", "Connection closed")

#: The seconds between two interrupts of a statement.
_INTERRUPT_EVERY = 0.01

T = TypeVar("T")


def sqlite_connection(connection: Connection) -> SqliteConnection:
    """Return the connection beneath SQLAlchemy's."""
    made = connection.connection.dbapi_connection
    assert isinstance(made, SqliteConnection)  # noqa: S101 -- for the type checker; the engine makes no other
    return made


class SqliteCursor(AsyncAdapt_aiosqlite_cursor):
    """A cursor that takes all rows along with its statement."""

    __slots__ = ()

    _adapt_connection: SqliteConnection

    def __init__(self, connection: SqliteConnection) -> None:
        self._adapt_connection = connection
        self._rows = deque()
        self._soft_closed_memoized = EMPTY_DICT

    def execute(self, operation: Any, parameters: Any = None) -> None:
        """Execute a statement, and take its rows."""
        self._take(lambda driver: driver.execute(operation, parameters or ()))

    def executemany(self, operation: Any, seq_of_parameters: Any) -> None:
        """Execute a statement for each of several sets of parameters."""
        self._take(lambda driver: driver.executemany(operation, seq_of_parameters))

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """Leave the rows, which SQLAlchemy still reads."""

    def _take(self, execute: Callable[[sqlite3.Connection], sqlite3.Cursor]) -> None:
        cursor, rows = self._adapt_connection.do(lambda driver: _fetched(execute(driver)))
        self._cursor: Any = cursor
        self._rows.extend(rows)


def _fetched(cursor: sqlite3.Cursor) -> tuple[sqlite3.Cursor, Sequence[Any]]:
    return cursor, cursor.fetchall() if cursor.description else ()


class SqliteConnection(AsyncAdapt_aiosqlite_connection):
    """A connection, and what it still has to begin."""

    __slots__ = ("_begin", "_thread")

    _cursor_cls = SqliteCursor  # type: ignore[assignment]  # mypy compares constructors

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        self._begin: str | None = None
        self._thread: int = await_(connection._execute(get_ident))

    def begin(self, statement: str) -> None:
        """Begin a transaction by this statement, once something else is to be executed."""
        self._begin = statement

    def commit(self) -> None:
        """Commit, unless nothing was begun."""
        if self._is_open():
            self.do(sqlite3.Connection.commit)

    def rollback(self) -> None:
        """Roll back, unless nothing was begun."""
        if self._is_open():
            self.do(sqlite3.Connection.rollback)

    def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the driver's connection in its thread, and return the result."""
        try:
            return self._begun(work) if get_ident() == self._thread else await_(self._in_thread(work))
        except ValueError as error:
            if str(error) in _CLOSED:
                raise sqlite3.OperationalError(str(error)) from error
            raise

    def _is_open(self) -> bool:
        self._begin = None
        driver = self._connection._connection  # None once it was closed
        return driver is not None and driver.in_transaction

    def _begun(self, work: Callable[[sqlite3.Connection], T]) -> T:
        driver = self._connection._conn
        if self._begin:
            driver.execute(self._begin)
            self._begin = None
        return work(driver)

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        # aiosqlite has no public way to run a function in its thread; SQLAlchemy's own dialect uses the private one.
        driver: Any = self._connection
        try:
            result: T = await driver._execute(copy_context().run, self._begun, work)
        except asyncio.CancelledError:
            await _interrupt(driver)
            raise
        return result


async def _interrupt(driver: Any) -> None:
    """Interrupt the thread's statement, and return once the thread has left it: only then its session is free.

    SQLite interrupts only what runs; a statement that the thread has not begun yet is interrupted after it has.
    """
    left = asyncio.ensure_future(driver._execute(lambda: None))
    while not left.done():
        driver._conn.interrupt()
        await asyncio.wait({left}, timeout=_INTERRUPT_EVERY)
