"""The session that a step works with: it can do everything but end its transaction, which belongs to the toolkit."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.compiler import Compiled
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit import failpoints
from toolkit.errors import StepError

#: What would end a transaction if a step said it in SQL; a savepoint may be rolled back to.
_ENDS_A_TRANSACTION = re.compile(r"\s*(COMMIT|END|ABORT|ROLLBACK(?!\s+TO))\b", re.IGNORECASE)


class _SyncStepSession(Session):
    """The session beneath a step's: it too refuses, since `run_sync` and `sync_session` lead here."""

    is_lent = False
    has_connection = False
    is_busy = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.executed: list[Compiled | None] = []

    def connection(self, *arguments: Any, **options: Any) -> Connection:
        """Return the connection; what is done with the driver's own beneath it shows nowhere."""
        self.executed.append(None)
        return super().connection(*arguments, **options)

    def commit(self) -> None:
        """Refuse, while a step has it: a commit would part the step's effect from its log entry and its event."""
        self.refuse_commit()
        super().commit()

    def rollback(self) -> None:
        """Refuse, while a step has it: what other steps of the same transaction wrote would be lost."""
        self.refuse_if_lent("rolls back", "return a refusal or raise, and what it wrote is undone")
        super().rollback()

    def close(self) -> None:
        """Refuse, while a step has it: what was written would be lost, and the step taken for done."""
        self.refuse_if_lent("closes its session", "the toolkit does")
        super().close()

    def reset(self) -> None:
        """Refuse as `close` does."""
        self.refuse_if_lent("resets its session", "the toolkit does")
        super().reset()

    def invalidate(self) -> None:
        """Refuse as `close` does."""
        self.refuse_if_lent("invalidates its session", "raise, and the attempt is made again")
        super().invalidate()

    def refuse_commit(self) -> None:
        """Raise a StepError while a step has the session."""
        self.refuse_if_lent("commits", "return the event, and the toolkit commits all of it together")

    def refuse_if_lent(self, deed: str, cure: str) -> None:
        """Raise a StepError while a step has the session."""
        if self.is_lent:
            raise StepError(f"a step never {deed}: {cure}")


class StepSession(AsyncSession):
    """What a step works with: an ordinary SQLModel session that can't end the transaction it is in."""

    sync_session_class = _SyncStepSession
    sync_session: _SyncStepSession

    #: The events whose outcome the transaction holds; only a failpoint asks.
    tells: Iterable[str | None] = ()

    @property
    def has_connection(self) -> bool:
        """Whether it has spoken to its database; new rows may wait in it before."""
        return self.sync_session.has_connection

    @property
    def is_busy(self) -> bool:
        """Whether a statement of it is under way: a task cancelled within one on SQLite leaves the write lock taken."""
        return self.sync_session.is_busy

    @property
    def executed(self) -> list[Compiled | None]:
        """The statements that it has executed, None for what SQLAlchemy has not compiled; clear it before."""
        return self.sync_session.executed

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Leave the session to somebody who can't end its transaction."""
        before, self.sync_session.is_lent = self.sync_session.is_lent, True
        try:
            yield
        finally:
            self.sync_session.is_lent = before

    async def commit(self) -> None:
        """Commit, unless a step has the session."""
        await failpoints.amid("commit-sent", super().commit(), self.tells)


@event.listens_for(_SyncStepSession, "after_begin")
def _know_its_session(session: _SyncStepSession, _: Any, connection: Connection) -> None:
    session.has_connection = True
    connection.info["session"] = weakref.ref(session)


def refuse_ends_while_lent(engine: AsyncEngine) -> None:
    """Refuse what would end the transaction past the session: by its connection, or in SQL."""

    def session_of(connection: Connection) -> _SyncStepSession | None:
        known = connection.info.get("session")
        return known() if known else None

    def refuse_commit(connection: Connection) -> None:
        try:
            if session := session_of(connection):
                session.refuse_commit()
        except StepError:
            # SQLAlchemy takes a commit that raises for an end all the same: the next user would commit what is open.
            connection.invalidate()
            raise

    def judge_statement(connection: Connection, _: Any, statement: str, __: Any, context: Any, *___: Any) -> None:
        if session := session_of(connection):
            session.executed.append(getattr(context, "compiled", None))
            if _ENDS_A_TRANSACTION.match(statement):
                session.refuse_commit()
            session.is_busy = True

    def is_done(connection: Connection, *_: Any) -> None:
        if session := session_of(connection):
            session.is_busy = False

    def has_failed(context: ExceptionContext) -> None:
        if context.connection is not None:
            is_done(context.connection)

    event.listen(engine.sync_engine, "commit", refuse_commit)
    event.listen(engine.sync_engine, "before_cursor_execute", judge_statement)
    event.listen(engine.sync_engine, "after_cursor_execute", is_done)
    event.listen(engine.sync_engine, "handle_error", has_failed)
