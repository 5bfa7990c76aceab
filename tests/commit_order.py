"""Transactions that commit in another order than they wrote: no relay may pass a row that became visible late."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.eventually import eventually
from tests.example_sagas.library_branch import RecordingPublisher
from tests.example_sagas.loan_messages import outbox_row
from tests.example_sagas.loan_rows import rows_left
from toolkit.clock import SystemClock
from toolkit.persistence import outbox
from toolkit.persistence.database import Database
from toolkit.runtime.relay import Relay

#: So many pairs race at the same time.
_AT_ONCE = 5


async def race(database: Database, *, pairs: int, seed: int, progress: Callable[[int], None]) -> list[str]:
    """Have pairs of transactions race to their commits under a running relay; return whose rows never went out."""
    publisher, dice = RecordingPublisher(), random.Random(seed)
    relay = Relay(
        database,
        publisher,
        service="library",
        clock=SystemClock(),
        window=50,
        lease=timedelta(seconds=5),
        poll=timedelta(milliseconds=10),
    )

    async def commit_both(number: int) -> None:
        """Two transactions at once: whichever inserted first, either may commit first."""
        async with database.engine.connect() as one, database.engine.connect() as two:
            for connection, name in ((one, "a"), (two, "b")):
                await outbox.add(connection, [outbox_row(f"loan-{number}-{name}", due_at=datetime.now(UTC))])
            in_order = (one, two) if dice.random() < 0.3 else (two, one)
            await in_order[0].commit()
            await asyncio.sleep(dice.random() * 0.01)
            await in_order[1].commit()

    async def is_empty() -> bool:
        return not await rows_left(database)

    working = asyncio.create_task(relay.run())
    for start in range(0, pairs, _AT_ONCE):
        some = range(start, min(start + _AT_ONCE, pairs))
        await asyncio.gather(*(commit_both(number) for number in some))
        progress(len(some))
    await eventually(is_empty, what="an empty outbox")
    relay.stop()
    await working
    due = {f"loan-{number}-{name}" for number in range(pairs) for name in "ab"}
    return sorted(due - set(map(str, publisher.saga_ids())))
