"""The loop of one service: what waits while a transaction runs is the next one.

The saga log is the fence; an outbox row is deleted after its confirm, by the next batch; deliveries are acknowledged
after the commit, all of a batch by one frame; rows that were left unsent are published at the start, and while it runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Container, Iterable, Sequence
from typing import Protocol

from benchmarks.bulk_amqp import Delivery, Outgoing
from benchmarks.saga import ROUTES, Route
from benchmarks.systems.by_hand.batch import Batch

#: The most deliveries in a transaction.
BATCH = 100
#: Seconds that confirmed rows wait for a batch that deletes them, between two looks for unsent rows, and the least age
#: of these: another process may be about to publish younger ones.
_DELETE_WITHIN, _LOOK_EVERY, _UNSENT_AFTER = 0.05, 1.0, 10.0


class Store(Protocol):
    """One service's database."""

    async def commit(self, batch: Batch) -> Container[str] | None:
        """Commit a batch, and return the emitted ids of the steps that were no duplicates; None if none was one."""
        ...

    async def unsent(self, age: float) -> Sequence[Outgoing]:
        """Return the outbox rows that have this age, in seconds, or a higher one."""
        ...


class Link(Protocol):
    """What carries one service's messages; it calls the loop's `take` and `confirm`."""

    def acknowledge(self, tag: int) -> None:
        """Acknowledge all deliveries up to this one."""
        ...

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish messages by one write."""
        ...

    def in_flight(self) -> set[str]:
        """Return the ids of the messages that are not confirmed yet."""
        ...


class Loop:
    """One service."""

    link: Link

    def __init__(self, name: str, store: Store) -> None:
        self.name, self.store = name, store
        self.routes: dict[str, Route] = {route.consumes: route for route in ROUTES if route.service == name}
        self._waiting: deque[Delivery] = deque()
        self._confirmed: list[str] = []
        self._awake = asyncio.Event()
        self._deleting: asyncio.TimerHandle | None = None
        self._is_delete_due = False

    def take(self, deliveries: Iterable[Delivery]) -> None:
        """Take what one read brought."""
        self._waiting.extend(deliveries)
        self._awake.set()

    def confirm(self, message_ids: Iterable[str]) -> None:
        """Have the rows of these messages deleted."""
        self._confirmed += message_ids
        if self._deleting is None:
            self._deleting = asyncio.get_running_loop().call_later(_DELETE_WITHIN, self._delete)

    async def run(self) -> None:
        """Commit batch after batch."""
        self.link.publish(await self.store.unsent(0))
        looking = asyncio.create_task(self._look_for_unsent())
        try:
            while True:
                await self._awake.wait()
                self._awake.clear()
                while self._waiting or self._is_delete_due:
                    await self._settle([self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))])
        finally:
            looking.cancel()

    def batch(self, deliveries: Sequence[Delivery], confirmed: Sequence[str]) -> Batch:
        """Return what the transaction of these deliveries writes."""
        return Batch.of(self.routes, deliveries, confirmed)

    async def _settle(self, deliveries: list[Delivery]) -> None:
        confirmed, self._confirmed, self._is_delete_due = self._confirmed, [], False
        if self._deleting:
            self._deleting.cancel()
            self._deleting = None
        batch = self.batch(deliveries, confirmed)
        fresh = await self.store.commit(batch)
        if deliveries:
            self.link.acknowledge(deliveries[-1].tag)
            self.link.publish(batch.outgoing(fresh))

    def _delete(self) -> None:
        self._deleting, self._is_delete_due = None, True
        self._awake.set()

    async def _look_for_unsent(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            known = self.link.in_flight().union(self._confirmed)
            if left := [each for each in await self.store.unsent(_UNSENT_AFTER) if each.message_id not in known]:
                self.link.publish(left)


async def run_all(loops: Iterable[Loop], stopped: asyncio.Event) -> None:
    """Run services until they are to stop.

    Raises:
        Exception: the error that ended one of them.
    """
    running = [asyncio.create_task(loop.run()) for loop in loops]
    stopping = asyncio.create_task(stopped.wait())
    done, _ = await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    for task in running:
        task.cancel()
