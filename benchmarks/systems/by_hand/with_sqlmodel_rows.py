"""The limit that keeps a service's own rows in SQLModel: a row a step through an AsyncSession, one flush a batch.

The log and the outbox of the batch are one statement on the driver's connection, in the session's transaction.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import partial

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.bulk_amqp import Outgoing
from benchmarks.systems.by_hand.batch import Batch, Step
from benchmarks.systems.by_hand.on_postgresql import BATCH, TABLES, fresh_of, parameters, unsent
from benchmarks.systems.by_hand.own_rows import Effect
from benchmarks.systems.by_hand.rabbitmq import run
from benchmarks.systems.process import work

_KNOWN = """
SELECT event_id FROM saga_log WHERE saga_id = ANY($1) AND event_id = ANY($2)
"""


class DuplicateError(Exception):
    """A batch has a duplicate, for which the session must not write a row."""


class SessionStore:
    """An engine for the batches, and a connection for the looks."""

    def __init__(self, engine: AsyncEngine, looking: asyncpg.Connection) -> None:
        self._engine, self._looking = engine, looking

    @classmethod
    async def open(cls, url: str) -> SessionStore:
        """Connect, and make sure of the tables."""
        looking = await asyncpg.connect(url)
        await looking.execute(TABLES)
        return cls(create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://", 1)), looking)

    async def commit(self, batch: Batch) -> Container[str] | None:
        """Commit a batch, and return the emitted ids of the steps that were no duplicates; None if none was one."""
        try:
            return await self._commit(batch)
        except DuplicateError:
            fresh = await self._fresh(batch.steps)
            await self._commit(Batch(batch.confirmed, fresh, batch.ended, batch.ended_by, batch.closing))
            return {each["emitted_id"] for each in fresh}

    async def _commit(self, batch: Batch) -> Container[str] | None:
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            for step in batch.steps:
                if step["amount"]:
                    session.add(Effect(order_id=step["saga_id"], amount=step["amount"]))
            has_own_rows = bool(session.new)
            await session.flush()
            raw = (await (await session.connection()).get_raw_connection()).driver_connection
            assert isinstance(raw, asyncpg.Connection)
            # Without rows of its own the session has not begun: the statement is a transaction by itself.
            fresh = fresh_of(batch, await raw.fetch(BATCH, *parameters(batch)))
            if has_own_rows and fresh is not None:
                raise DuplicateError
            await session.commit()
            return fresh

    async def _fresh(self, steps: Iterable[Step]) -> list[Step]:
        """Return the steps that the log does not have, each once."""
        events = {each["event_id"]: each for each in steps}
        sagas = [each["saga_id"] for each in events.values()]
        known = {row["event_id"] for row in await self._looking.fetch(_KNOWN, sagas, list(events))}
        return [step for event_id, step in events.items() if event_id not in known]

    async def unsent(self, age: float) -> Sequence[Outgoing]:
        """Return the outbox rows that have this age, in seconds, or a higher one."""
        return await unsent(self._looking, age)


if __name__ == "__main__":
    work(partial(run, open_store=SessionStore.open))
