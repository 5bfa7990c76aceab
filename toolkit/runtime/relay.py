"""The relay: publishes outbox rows, and deletes them after the broker's positive confirm, never before.

Rows of this process are handed over at commit; the poll finds delayed rows and those of processes that died. Nothing
is lost whenever it stops: an unconfirmed row comes due again, and the worst case is a duplicate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from toolkit import failpoints
from toolkit.clock import Clock
from toolkit.errors import UnroutableError
from toolkit.foreign_code.containment import contain, contained
from toolkit.ids import trace_facts
from toolkit.messaging.envelope import SAGA_TYPE, TRACEPARENT, WireMessage
from toolkit.observability import metrics
from toolkit.observability.tracing import Tracing, now
from toolkit.persistence import outbox
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import complain
from toolkit.persistence.outbox import OutboxRow
from toolkit.runtime.confirmed_rows import ConfirmedRows

log = structlog.get_logger("toolkit")

#: An event without a bound queue is published again after 1, 2, 4 … seconds, at most this long.
_LONGEST_WAIT = timedelta(minutes=1)


class Publisher(Protocol):
    """The way out of a service."""

    async def publish(self, message: WireMessage, *, destination: str | None) -> None:
        """Send a message to the exchange or to one queue, and return once the broker has confirmed it.

        Raises:
            UnroutableError: the broker took it, and no queue did.
            Exception: anything else; whether it arrived is unknown.
        """
        ...


class Relay:
    """Publishes the outbox of one service; several replicas share the work by leases."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        *,
        service: str,
        clock: Clock,
        window: int,
        lease: timedelta,
        poll: timedelta,
        tracing: Tracing | None = None,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._clock = clock
        self._window = window
        self._lease = lease
        self._poll = poll
        self._confirmed = ConfirmedRows(database)
        self.deletion = self._confirmed.deletion
        self._in_flight: dict[str, asyncio.Task[None]] = {}
        self._message_ids: set[str | None] = set()
        self._expected: list[datetime] = []
        self._wake = asyncio.Event()
        self._tracing = tracing
        self._confirms = metrics.confirms.labels(service)
        self._returns = metrics.returns.labels(service)
        self._failures = metrics.failures.labels(service)
        self._is_stopping = False
        self._claims = True

    @property
    def is_healthy(self) -> bool:
        """Whether the relay's last transactions succeeded."""
        return self._claims and self._confirmed.is_healthy

    def due_if_handed_over(self) -> datetime:
        """Return the due time for rows about to be committed: a lease ahead if this relay will send them itself."""
        now = self._clock.now()
        return now + self._lease if self._has_room() else now

    def hand_over(self, outgoing: Sequence[OutboxRow], delayed: Sequence[OutboxRow]) -> None:
        """Send committed rows now, and remember when the delayed ones come due."""
        now = self._clock.now()
        for row in outgoing:
            if row.due_at > now:
                self._start(row)
            else:
                self._wake.set()
        if delayed:
            self._expected += [row.due_at for row in delayed]
            self._wake.set()

    async def run(self) -> None:
        """Publish due rows until `stop`."""
        async with asyncio.TaskGroup() as tasks:  # it overlooks a task that ends in CancelledError
            tasks.create_task(contain("claiming", self._claim_forever()))
            tasks.create_task(contain("deleting", self._confirmed.run()))

    def stop(self) -> None:
        """Let `run` return between two transactions: a cancelled transaction would leave its connection locked."""
        self._is_stopping = True
        self._wake.set()
        self._confirmed.stop()

    async def drain(self) -> None:
        """Wait until all rows in flight are confirmed and deleted."""
        while self._in_flight:
            await asyncio.wait(self._in_flight.values())
        await self._confirmed.delete()

    async def _claim_forever(self) -> None:
        while not self._is_stopping:
            full = await self._claim_due()
            if not full and not self._is_stopping:
                await self._sleep()

    async def _claim_due(self) -> bool:
        """Claim due rows and start sending them; return whether more may be due."""
        self._wake.clear()
        now = self._clock.now()
        self._expected = [moment for moment in self._expected if moment > now]
        room = self._window - len(self._in_flight)
        if room <= 0:
            return False  # due rows are claimed as soon as there is room: then the relay is woken
        try:
            rows = await contain("claiming", self._claim(now, room))
        except Exception as error:  # noqa: BLE001 -- the relay outlives every outage of its database
            self._failed(error)
            return False
        self._claims = True
        failpoints.here("relay-claimed", (row.message.type for row in rows))
        for row in rows:
            self._start(row)
        return len(rows) == room

    async def _claim(self, now: datetime, most: int) -> list[OutboxRow]:
        async with self._database.transaction() as session:
            return await outbox.claim(await session.connection(), now=now, until=now + self._lease, most=most)

    async def _sleep(self) -> None:
        """Wait until woken, until the next delayed row is due, or for the poll interval."""
        until_next = min(self._expected, default=None)
        wait = min(self._poll, until_next - self._clock.now()) if until_next else self._poll
        try:
            async with asyncio.timeout(max(wait.total_seconds(), 0.001)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _start(self, row: OutboxRow) -> None:
        # One message id is in flight once: returns are matched by it. A second row with it waits for its lease.
        if row.id in self._in_flight or row.id in self._confirmed or row.message.message_id in self._message_ids:
            return
        self._message_ids.add(row.message.message_id)
        task = asyncio.create_task(self._send(row))
        self._in_flight[row.id] = task
        task.add_done_callback(lambda _: self._landed(row))

    def _landed(self, row: OutboxRow) -> None:
        self._in_flight.pop(row.id, None)
        self._message_ids.discard(row.message.message_id)
        if len(self._in_flight) == self._window // 2:  # half of it at once: each claim is a transaction
            self._wake.set()

    async def _send(self, row: OutboxRow) -> None:
        since = now()
        try:
            publish = self._publisher.publish(row.message, destination=row.destination)
            # aio-pika ends a publish on a dying connection in CancelledError, though nothing cancelled it.
            await contain("publishing", failpoints.amid("published", publish, (row.message.type,)))
        except UnroutableError as error:
            if not row.optional:
                self._returns.inc()
                await self._put_back(row, error)
                return
        except Exception as error:  # noqa: BLE001 -- whatever the broker's client raises, the row stays and comes due again
            self._failures.inc()
            log.warning("publish failed", error=str(error), **_facts(row))
            return
        failpoints.here("confirmed", (row.message.type,))
        self._confirmed.add(row.id, row.message.type)
        self._confirms.inc()
        if self._tracing:
            self._tracing.published(row.message, destination=row.destination, since=since)

    async def _put_back(self, row: OutboxRow, error: UnroutableError) -> None:
        """Keep an event without a bound queue, and publish it again after a growing pause."""
        wait = min(timedelta(seconds=2 ** min(row.tries, 10)), _LONGEST_WAIT)
        log.warning("no queue is bound to the event", error=str(error), tries=row.tries + 1, **_facts(row))
        due_at = self._clock.now() + wait
        try:
            with contained("putting back"):
                async with self._database.transaction() as session:
                    await outbox.put_back(await session.connection(), row.id, until=due_at)
        except Exception as failure:  # noqa: BLE001 -- the row comes due by its lease all the same
            self._failed(failure)
        self._expected.append(due_at)

    def _failed(self, error: Exception) -> None:
        self._claims = False
        complain("relay can't reach its database", error)

    def _has_room(self) -> bool:
        return len(self._in_flight) < self._window


def _facts(row: OutboxRow) -> dict[str, str | None]:
    message = row.message
    saga = {"saga_type": message.headers.get(SAGA_TYPE), "saga_id": message.correlation_id}
    facts = saga | {"event_id": message.message_id}
    return facts | trace_facts(row.message.headers.get(TRACEPARENT))
