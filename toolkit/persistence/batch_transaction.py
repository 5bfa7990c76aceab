"""The transaction of one batch: a connection, and a session once a step asks for one.

Without a session, what the batch reads and writes is one statement each on PostgreSQL: each is a transaction of its
own, without BEGIN and COMMIT. The fence by position decides races then as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit import failpoints
from toolkit.persistence import pruning_watermark
from toolkit.persistence.batch_write import BatchWrite, write_batch
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

    @property
    def has_session(self) -> bool:
        """Whether the session was asked for."""
        return self._session is not None

    @property
    def session(self) -> StepSession:
        """Return the session; it begins the transaction at its first use of the database."""
        if self._session is None:
            self._session = StepSession(self.connection, expire_on_commit=False)
            self._session.sync_session.is_lent = True
        return self._session

    async def read_streams(self, saga_ids: Iterable[str]) -> dict[StreamKey, Stream]:
        """Read all streams of the sagas with these ids, of any type, in one statement."""
        return await read_streams(self.connection, saga_ids, may_commit=True)

    async def may_have_pruned(self, moment: datetime) -> bool:
        """Whether a saga of that moment, of which no stream was read, may have been pruned.

        The watermark is read once, after the streams: what was pruned before they were read is behind it.
        """
        if not self._has_read_watermark:
            self._pruned_until = await pruning_watermark.reached(self.connection)
            self._has_read_watermark = True
        return pruning_watermark.is_beyond(self._pruned_until, moment)

    async def write(self, batch: BatchWrite) -> bool:
        """Write what the batch writes, after the rows of its session; return whether it was written.

        Raises:
            PositionTakenError: another replica took one of the positions first; nothing was written.
        """
        if (session := self._session) is not None and (session.new or session.dirty or session.deleted):
            await session.flush()
        writing = write_batch(self.connection, batch, may_commit=True)
        if self.connection.in_transaction():
            return await writing
        return await failpoints.amid("commit-sent", writing, self.outcomes)

    async def commit(self) -> None:
        """Commit what has no commit yet."""
        if self._session is not None:
            self._session.sync_session.is_lent = False
            self._session.outcomes = self.outcomes
            await self._session.commit()
        if self.connection.in_transaction():
            await failpoints.amid("commit-sent", self.connection.commit(), self.outcomes)

    async def rollback(self) -> None:
        """Undo what has no commit yet."""
        if self._session is not None:
            self._session.sync_session.is_lent = False
            await self._session.rollback()
        if self.connection.in_transaction():
            await self.connection.rollback()

    async def close(self) -> None:
        """End the session."""
        if self._session is not None:
            await self._session.close()
