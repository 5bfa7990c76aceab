"""The transaction of one batch: a connection, and a session once a step asks for one.

Without a session, what the batch reads and writes is one statement each on PostgreSQL: each is a transaction of its
own, without BEGIN and COMMIT. The fence by position decides races then as well. On SQLite all that a batch writes, from
BEGIN to COMMIT, is one change to the connection's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from sqlite3 import Connection as Driver

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit import failpoints
from toolkit.errors import NotCommittedError, RowsNotWrittenError
from toolkit.foreign_code.containment import contained
from toolkit.persistence import pruning_watermark, saga_waits
from toolkit.persistence.batch_write import (
    WRITTEN_TO_SQLITE,
    BatchWrite,
    recognizing_the_fence,
    write_batch,
    writer_to_sqlite,
)
from toolkit.persistence.direct_statements import work_in_thread
from toolkit.persistence.saga_log_streams import Stream, read_streams
from toolkit.persistence.step_session import StepSession
from toolkit.protocol.keys import StreamKey


class BatchTransaction:
    """Lends its session until it commits."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        #: The events whose outcome the transaction holds; only a failpoint reads it.
        self.outcomes: Iterable[str | None] = ()
        self._session: StepSession | None = None
        self._has_read_watermark = False
        self._pruned_until: datetime | None = None
        self._is_committed = False

    @property
    def session(self) -> StepSession:
        """Return the session; it begins the transaction at its first use of the database."""
        if self._session is None:
            self._session = StepSession(self.connection, expire_on_commit=False)
            self._session.sync_session.is_lent = True
        return self._session

    async def read_streams(self, saga_ids: Iterable[str], *, has_joins: bool = False) -> dict[StreamKey, Stream]:
        """Read all streams of the sagas with these ids, of any type, in one statement."""
        return await read_streams(self.connection, saga_ids, may_commit=True, has_joins=has_joins)

    async def may_have_pruned(self, moment: datetime) -> bool:
        """Whether a saga of that moment, of which no stream was read, may have been pruned.

        The watermark is read once, after the streams: what was pruned before they were read is behind it.
        """
        if not self._has_read_watermark:
            self._pruned_until = await pruning_watermark.reached(self.connection)
            self._has_read_watermark = True
        return pruning_watermark.is_beyond(self._pruned_until, moment)

    async def hold(self, question: StreamKey, until: datetime) -> None:
        """Record until when a saga waits for an answer."""
        await saga_waits.hold(self.connection, question, until)

    async def write(self, batch: BatchWrite) -> bool:
        """Write the rows that wait in the session, and what the batch writes; return whether the latter was written.

        Raises:
            PositionTakenError: another replica took one of the positions first; nothing was written.
            RowsNotWrittenError: a row of the session can't be written.
            NotCommittedError: SQLite, which writes and commits at once, can't commit.
        """
        if not (batch or self._session):
            return True
        if self.connection.dialect.name == "sqlite" and not batch.dead_letters:
            with recognizing_the_fence(batch):
                writing = self.connection.run_sync(self._write_and_commit, writer_to_sqlite(batch))
                return await failpoints.amid("commit-sent", writing, self.outcomes)
        await self.flush()
        failpoints.here("step-written", self.outcomes)
        writing = write_batch(self.connection, batch, may_commit=True)
        if self.connection.in_transaction():
            return await writing
        return await failpoints.amid("commit-sent", writing, self.outcomes)

    async def flush(self) -> None:
        """Write the rows that wait in the session.

        Raises:
            RowsNotWrittenError: a row can't be written.
        """
        if (session := self._session) is None or not (session.new or session.dirty or session.deleted):
            return
        try:
            with contained("the rows of the steps"):
                await session.flush()
        except Exception as error:
            raise RowsNotWrittenError from error

    async def commit(self) -> None:
        """Commit what has no commit yet, and return the connection to the pool: one call does all of it."""
        if self._session is not None:
            self._session.sync_session.is_lent = False
        ending = self.connection.run_sync(self._end)
        await (failpoints.amid("commit-sent", ending, self.outcomes) if self.connection.in_transaction() else ending)

    def _end(self, connection: Connection) -> None:
        session = self._session.sync_session if self._session else None
        if session is not None and not self._is_committed:
            session.commit()
        if connection.in_transaction():
            connection.commit()
        if session is not None:
            session.close()
        connection.close()

    async def rollback(self) -> None:
        """Undo what has no commit yet."""
        if self._session is not None:
            self._session.sync_session.is_lent = False
            await self._session.rollback()
        if self.connection.in_transaction():
            await self.connection.rollback()

    async def close(self) -> None:
        """End the session, and return the connection to the pool, unless `commit` did; a cancellation waits for it."""
        if self.connection.closed:
            return
        if self._session is not None:
            await self._session.close()
        await self.connection.__aexit__(None, None, None)

    def _write_and_commit(self, connection: Connection, write: Callable[[Driver], bool]) -> bool:
        """Do in SQLite's thread all that `write` and `commit` do, and begin the transaction before."""
        session = self._session.sync_session if self._session else None

        def write_all(_: Driver) -> bool:
            if session is not None:
                try:
                    session.flush()
                except BaseException as error:
                    raise RowsNotWrittenError from error
            failpoints.here("step-written", self.outcomes)
            if not work_in_thread(connection, write, WRITTEN_TO_SQLITE):
                return False
            failpoints.here("log-written", self.outcomes)
            failpoints.here("outbox-written", self.outcomes)
            if session is not None:
                session.is_lent = False
                try:
                    session.commit()
                except Exception as error:
                    raise NotCommittedError from error
            if connection.in_transaction():
                connection.commit()
            return True

        if session is not None:
            session.connection()  # it begins here, where SQLAlchemy can wait for the write lock
        self._is_committed = work_in_thread(connection, write_all, WRITTEN_TO_SQLITE)
        return self._is_committed
