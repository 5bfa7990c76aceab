"""A relay under test, broker outcomes for it, and waits for what it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy import event
from sqlalchemy.engine import Connection

from tests.eventually import becomes_true, eventually
from tests.example_sagas.library_branch import RecordingPublisher
from tests.example_sagas.loan_rows import rows_left
from toolkit.errors import UnroutableError
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence.database import Database
from toolkit.runtime.relay import Relay
from toolkit.testing import ManualClock

LEASE = timedelta(seconds=5)


class Hold:
    """An outcome that delays the confirm until the test sets `confirm`."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.confirm = asyncio.Event()

    async def __call__(self, _: WireMessage) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await self.confirm.wait()
        self.waiting -= 1


async def no_queue_bound(_: WireMessage) -> None:
    raise UnroutableError("no queue is bound")


async def connection_lost(_: WireMessage) -> None:
    raise ConnectionError("the broker is away")


async def dying_connection(_: WireMessage) -> None:
    raise asyncio.CancelledError


def relay_of(
    database: Database, publisher: RecordingPublisher, clock: ManualClock, *, window: int = 10, poll: float = 0.02
) -> Relay:
    """Return a relay that polls every 20 ms, unless a test chooses another interval in seconds."""
    return Relay(
        database, publisher, service="library", clock=clock, window=window, lease=LEASE, poll=timedelta(seconds=poll)
    )


@asynccontextmanager
async def running(*relays: Relay) -> AsyncIterator[None]:
    """Run relays inside the block, and cancel them at its end."""
    tasks = [asyncio.create_task(relay.run()) for relay in relays]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_published(publisher: RecordingPublisher, count: int) -> None:
    """Return once the publisher has received so many messages."""

    async def look() -> bool:
        return len(publisher.taken) >= count

    await eventually(look, what=f"{count} messages")


async def until_empty(database: Database) -> None:
    """Return once the outbox has no rows."""

    async def look() -> bool:
        return not await rows_left(database)

    await eventually(look, what="an empty outbox")


async def polled(database: Database, *, times: int = 3) -> None:
    """Return once the relay has committed so many more transactions: what it has not done by then, it does not do."""
    commits = 0

    def count(_: Connection) -> None:
        nonlocal commits
        commits += 1

    event.listen(database.engine.sync_engine, "commit", count)
    try:
        await becomes_true(lambda: commits >= times, what=f"{times} polls")
    finally:
        event.remove(database.engine.sync_engine, "commit", count)


async def a_moment() -> None:
    """Give a relay that sleeps until it is woken the time to wake up wrongly."""
    await asyncio.sleep(0.15)
