"""Statements of the toolkit's own on the driver's cursor, without SQLAlchemy's layers above it.

They run on the connection and in the transaction of a session, and their errors are those that SQLAlchemy raises for
any statement: wrapped, without row values, and with a lost connection taken out of the pool.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import Connection, ExecutionContext
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from toolkit.persistence.sqlite_connection import sqlite_connection

#: What a connection's `info` holds where one statement, of two messages to the server, may be a transaction of its own.
COMMITS_ALONE = "commits_alone"
#: The execution option that carries the driver's error of a statement that ran past SQLAlchemy.
_ERROR = "toolkit_driver_error"

T = TypeVar("T")


async def fetch(
    connection: AsyncConnection, statement: str, parameters: Sequence[Any], *, may_commit: bool = False
) -> Sequence[Sequence[Any]]:
    """Execute one statement in the driver's own SQL, and return its rows.

    With `may_commit` it is a transaction of its own, without the round trips of BEGIN and COMMIT, unless the connection
    has begun one.
    """
    return await connection.run_sync(_fetch_alone if may_commit else _fetch, statement, parameters)


async def run_in_thread(
    connection: AsyncConnection, work: Callable[[sqlite3.Connection], T], statement: str, *, begins: bool = True
) -> T:
    """Run several statements on SQLite's connection in one go, and return the result.

    Each call of aiosqlite, which runs a thread for each connection, costs a change to that thread and back. `statement`
    is the SQL that an error names. A read that begins no transaction waits for no writer.
    """
    return await connection.run_sync(work_in_thread, work, statement, begins=begins)


def raise_as_sqlalchemy(engine: AsyncEngine) -> None:
    """Let this engine raise the errors of direct statements as its own."""
    event.listen(engine.dialect, "do_execute", _raise_given)


def _raise_given(_: Any, __: str, ___: Any, context: ExecutionContext) -> None:
    if (error := context.execution_options.get(_ERROR)) is not None:
        raise error


def _fetch(connection: Connection, statement: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
    _begin(connection)
    return _execute(connection, statement, parameters)


def _fetch_alone(connection: Connection, statement: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
    if connection.in_transaction() or not connection.info.get(COMMITS_ALONE):
        return _fetch(connection, statement, parameters)
    adapted: Any = connection.connection.dbapi_connection
    adapted.autocommit = True  # else it would begin a transaction
    try:
        return _execute(connection, statement, parameters)
    finally:
        adapted.autocommit = False


def _execute(connection: Connection, statement: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
    try:
        cursor = connection.connection.cursor()
        cursor.execute(statement, parameters)
        return cursor.fetchall()
    except BaseException as error:  # noqa: BLE001 -- it is raised again
        _raise(connection, statement, error)


def work_in_thread(
    connection: Connection, work: Callable[[sqlite3.Connection], T], statement: str, *, begins: bool = True
) -> T:
    """Do as `run_in_thread` where SQLAlchemy awaits nothing: in its events, for example, or in the thread itself."""
    if begins:
        _begin(connection)
    made = sqlite_connection(connection)
    try:
        return made.do(work)
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, sqlite3.Error):
            raise
        _raise(connection, statement, error)


def _begin(connection: Connection) -> None:
    """Begin the transaction that SQLAlchemy would begin at a statement."""
    if not connection.in_transaction():
        connection.begin()


def _raise(connection: Connection, statement: str, error: BaseException) -> NoReturn:
    """Raise a driver's error as SQLAlchemy raises it, after all that SQLAlchemy does about it."""
    if isinstance(error, Exception):
        # The statement is not executed once more: the listener raises the error where the driver would have.
        connection.exec_driver_sql(statement, (None,), execution_options={_ERROR: error})
    elif not connection.invalidated:
        # Cut off within its statement, by a cancellation: the connection's state is unknown.
        connection.invalidate(error)
    raise error
