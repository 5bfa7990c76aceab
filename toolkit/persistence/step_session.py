"""The session that a step receives: it can do everything but end its transaction, which belongs to the toolkit."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.compiler import Compiled
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit import failpoints
from toolkit.errors import StepError
from toolkit.persistence.own_connections import listen_to_errors

#: SQL that would end the transaction; a rollback to a savepoint is allowed.
_ENDS_A_TRANSACTION = re.compile(r"\s*(COMMIT|END|ABORT|ROLLBACK(?!\s+TO))\b", re.IGNORECASE)


class _SyncStepSession(Session):
    """The synchronous session beneath a step's; it refuses, too, since `run_sync` and `sync_session` lead here."""

    is_lent = False
    has_connection = False
    is_busy = False
    has_new = False
    in_step = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.executed: list[Compiled | None] = []

    def connection(self, *arguments: Any, **options: Any) -> Connection:
        """Return the connection, recorded as None: use of the driver beneath it can't be observed.

        The driver begins its transaction with the first statement of SQLAlchemy's; a step may write past that.
        """
        self.executed.append(None)
        connection = super().connection(*arguments, **options)
        if self.in_step:
            connection.exec_driver_sql("SELECT 1")
        return connection

    def commit(self) -> None:
        """Refuse while a step has the session: a commit would separate the step's effect from its log entry."""
        self.refuse_commit()
        super().commit()

    def rollback(self) -> None:
        """Refuse while a step has the session: writes of other steps in the transaction would be lost."""
        self.refuse_if_lent("rolls back", "return a refusal or raise, and the toolkit undoes its writes")
        super().rollback()

    def close(self) -> None:
        """Refuse while a step has the session: its writes would be lost, but the step would count as completed."""
        self.refuse_if_lent("closes its session", "the toolkit does")
        super().close()

    def reset(self) -> None:
        """Refuse as `close` does."""
        self.refuse_if_lent("resets its session", "the toolkit does")
        super().reset()

    def invalidate(self) -> None:
        """Refuse as `close` does."""
        self.refuse_if_lent("invalidates its session", "raise, and the toolkit retries the step")
        super().invalidate()

    def refuse_commit(self) -> None:
        """Raise a StepError while a step has the session."""
        self.refuse_if_lent("commits", "return the event, and the toolkit commits everything together")

    def refuse_if_lent(self, attempt: str, cure: str) -> None:
        """Raise a StepError while a step has the session."""
        if self.is_lent:
            raise StepError(f"a step never {attempt}: {cure}")


class _Lent:
    """A block in which the session is lent, to a step or to the toolkit's own code."""

    __slots__ = ("_before", "_session", "_to_step")

    def __init__(self, session: _SyncStepSession, *, to_step: bool) -> None:
        self._session = session
        self._to_step = to_step

    def __enter__(self) -> None:
        session = self._session
        self._before = session.is_lent, session.in_step
        session.is_lent, session.in_step = True, self._to_step

    def __exit__(self, *_: object) -> None:
        self._session.is_lent, self._session.in_step = self._before


class StepSession(AsyncSession):
    """The session that a step receives: an ordinary SQLModel session that can't end its transaction."""

    sync_session_class = _SyncStepSession
    sync_session: _SyncStepSession

    #: The events whose outcome the transaction holds; only a failpoint reads it.
    outcomes: Iterable[str | None] = ()

    @property
    def has_connection(self) -> bool:
        """Whether the session has used its database; before that, new rows may wait in the session."""
        return self.sync_session.has_connection

    @property
    def is_busy(self) -> bool:
        """Whether a statement is running: on SQLite, a task cancelled during one leaves the write lock taken."""
        return self.sync_session.is_busy

    @property
    def executed(self) -> list[Compiled | None]:
        """The statements since `begin_step`, None for those that SQLAlchemy did not compile."""
        return self.sync_session.executed

    @property
    def has_new(self) -> bool:
        """Whether a new row was added since `begin_step`."""
        return self.sync_session.has_new

    def begin_step(self) -> None:
        """Observe from here on what a step does with the session."""
        self.sync_session.executed.clear()
        self.sync_session.has_new = False

    def lent(self, *, to_step: bool = False) -> _Lent:
        """Lend the session: until the end of the block its transaction can't be ended."""
        return _Lent(self.sync_session, to_step=to_step)

    async def commit(self) -> None:
        """Commit, unless a step has the session."""
        await failpoints.amid("commit-sent", super().commit(), self.outcomes)


@event.listens_for(_SyncStepSession, "after_begin")
def _remember_session(session: _SyncStepSession, _: Any, connection: Connection) -> None:
    session.has_connection = True
    connection.info["session"] = weakref.ref(session)


@event.listens_for(_SyncStepSession, "transient_to_pending")
def _remember_new(session: _SyncStepSession, _: object) -> None:
    session.has_new = True


def refuse_ends_while_lent(engine: AsyncEngine) -> None:
    """Refuse to end the transaction past the session: by its connection, or in SQL."""
    event.listen(engine.sync_engine, "commit", _refuse_commit)
    event.listen(engine.sync_engine, "before_cursor_execute", _check_statement)
    event.listen(engine.sync_engine, "after_cursor_execute", _mark_idle)
    listen_to_errors(engine, _mark_failed)


def _session_of(connection: Connection) -> _SyncStepSession | None:
    known = connection.info.get("session")
    session: _SyncStepSession | None = known() if known else None
    return session


def _refuse_commit(connection: Connection) -> None:
    try:
        if session := _session_of(connection):
            session.refuse_commit()
    except StepError:
        # For SQLAlchemy a commit that raises ends the transaction: the next user would commit what is open.
        connection.invalidate()
        raise


def _check_statement(connection: Connection, _: Any, statement: str, __: Any, context: Any, *___: Any) -> None:
    if session := _session_of(connection):
        session.executed.append(getattr(context, "compiled", None))
        if _ENDS_A_TRANSACTION.match(statement):
            session.refuse_commit()
        session.is_busy = True


def _mark_idle(connection: Connection, *_: Any) -> None:
    if session := _session_of(connection):
        session.is_busy = False


def _mark_failed(context: ExceptionContext) -> None:
    if context.connection is not None:
        _mark_idle(context.connection)
