"""The outbox by a session of the application's own: rows that its transaction commits, or rolls back.

The session may be SQLAlchemy's or SQLModel's, on any driver of SQLite or PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar, cast
from weakref import WeakSet

from sqlalchemy import event, inspect
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from toolkit.configuration.settings import load_settings
from toolkit.errors import SagaError
from toolkit.persistence.outbox import outbox
from toolkit.persistence.schema import schema_for, schema_of, use_schema
from toolkit.runtime import running
from toolkit.urls import shown_url

T = TypeVar("T")

#: The engines whose database has the toolkit's tables: each is looked at once.
_known: WeakSet[Engine] = WeakSet()
#: In a session's `info`: its transaction has added rows.
_ADDED = "saga-toolkit: rows added"


class NoOutboxError(SagaError):
    """A session has no outbox: it is none of SQLAlchemy's, or its database has no tables of the toolkit."""


def async_session_of(session: object) -> AsyncSession:
    """Return an asynchronous session, out of its scope if it has one.

    Raises:
        NoOutboxError: it is none.
    """
    found = session() if isinstance(session, async_scoped_session) else session
    if isinstance(found, AsyncSession):
        return found
    cure = "`start_sync` and `answer_sync` take a Session" if isinstance(found, Session | scoped_session) else _CURE
    raise NoOutboxError(f"this {type(found).__name__} is no AsyncSession: {cure}")


def sync_session_of(session: object) -> Session:
    """Return a synchronous session, out of its scope if it has one.

    Raises:
        NoOutboxError: it is none.
    """
    found = session() if isinstance(session, scoped_session) else session
    if isinstance(found, Session):
        return found
    is_async = isinstance(found, AsyncSession | async_scoped_session)
    cure = "`await start(…)` and `await answer(…)` take an AsyncSession" if is_async else _CURE
    raise NoOutboxError(f"this {type(found).__name__} is no Session: {cure}")


_CURE = "pass a session of SQLAlchemy or SQLModel that is bound to the service's database"


def outbox_connection(session: Session) -> AsyncConnection:
    """Return the connection of the session's transaction to the outbox; what is added is sent after its commit.

    Only the awaitable methods of `_AtOnce` may be used, by `at_once`.

    Raises:
        NoOutboxError: the session's database has no outbox.
    """
    try:
        connection = session.connection(bind_arguments={"clause": outbox})
    except UnboundExecutionError as error:
        raise NoOutboxError(f"the session is bound to no database with the table {outbox.name}: {_CURE}") from error
    if connection.engine not in _known:
        _check(connection)
        _known.add(connection.engine)
    if not session.info.get(_ADDED):
        session.info[_ADDED] = True
        event.listen(session, "after_commit", _committed)
    return cast("AsyncConnection", _AtOnce(connection))


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that awaits nothing but an `outbox_connection`."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it awaits something else than its connection")


class _AtOnce:
    """A synchronous connection under the methods of an asynchronous one that the toolkit's tables use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = connection.dialect

    async def execute(self, *arguments: Any) -> Any:
        """Execute a statement."""
        return self._connection.execute(*arguments)

    async def scalar(self, *arguments: Any) -> Any:
        """Execute a statement, and return the first value."""
        return self._connection.scalar(*arguments)


def _check(connection: Connection) -> None:
    if connection.dialect.name == "postgresql" and schema_of(connection.dialect) is None:
        use_schema(connection.dialect, _schema())
    if not inspect(connection).has_table(outbox.name, schema=schema_for(outbox, connection.dialect)):
        place = shown_url(connection.engine.url.render_as_string())
        raise NoOutboxError(
            f"the session's database {place} has no table {outbox.name}: start the service once, "
            "which creates the toolkit's tables, or bind the session to the service's database"
        )


def _schema() -> str | None:
    """Return the schema of the toolkit's tables for an engine that no service runs on.

    Raises:
        NoOutboxError: the services of this process have several.
    """
    found = running.schemas() or {load_settings().database_schema}
    if len(found) > 1:
        shown = ", ".join(sorted(each or "the default one" for each in found))
        raise NoOutboxError(
            f"services of this process have their tables in several schemas: {shown}; bind the session to the engine "
            "that its service runs on, by `engine=`"
        )
    return found.pop()


def _committed(session: Session) -> None:
    # A savepoint that is released is no commit yet. After a rollback the mark stays: the relays look once in vain.
    if not session.in_nested_transaction() and session.info.pop(_ADDED, False):
        running.wake_relays()
