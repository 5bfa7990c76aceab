"""The relay: publishes outbox rows, and deletes them after the broker's positive confirm, never before.

Rows of this process are handed over at commit, and go out together as a burst; `due_rows` finds delayed rows and those
of processes that died. Nothing is lost whenever it stops: an unconfirmed row comes due again, and the worst case is a
duplicate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
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
from toolkit.persistence.outbox import OutboxRow
from toolkit.runtime.confirmed_rows import ConfirmedRows
from toolkit.runtime.due_rows import DueRows

log = structlog.get_logger("toolkit")

#: An event without a bound queue is published again after 1, 2, 4 … seconds, at most this long.
_LONGEST_WAIT = timedelta(minutes=1)
#: The most rows of a burst: its rows stay in flight until the last one is confirmed.
_LARGEST_BURST = 100


class Publisher(Protocol):
    """The way out of a service."""

    async def publish_many(self, messages: Sequence[tuple[WireMessage, str | None]]) -> Sequence[Exception | None]:
        """Send messages, each to the exchange or to the queue that it names, and return what the broker did with each.

        None means that the broker has confirmed the message; an `UnroutableError`, that the broker took it and no queue
        did. After any other error it is unknown whether the message arrived. Their message ids differ.
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
        self._confirmed = ConfirmedRows(database)
        self.deletion = self._confirmed.deletion
        self._due = DueRows(database, clock=clock, lease=lease, poll=poll, room=self._room, start=self._start)
        self._in_flight: set[str] = set()
        self._message_ids: set[str | None] = set()
        self._sending: set[asyncio.Task[None]] = set()
        self._bursts = 0
        self._tracing = tracing
        self._confirms = metrics.confirms.labels(service)
        self._returns = metrics.returns.labels(service)
        self._failures = metrics.failures.labels(service)

    @property
    def is_healthy(self) -> bool:
        """Whether the relay's last transactions succeeded."""
        return self._due.is_healthy and self._confirmed.is_healthy

    @property
    def is_busy(self) -> bool:
        """Whether rows are being claimed or published."""
        return self._due.is_claiming or bool(self._sending)

    @property
    def begun(self) -> int:
        """How many claims and bursts have begun: where it stands still, no row has gone out meanwhile."""
        return self._due.claims + self._bursts

    def due_if_handed_over(self) -> datetime:
        """Return the due time for rows about to be committed: a lease ahead if this relay will send them itself."""
        now = self._clock.now()
        return now + self._lease if self._room() > 0 else now

    def hand_over(self, outgoing: Sequence[OutboxRow], delayed: Sequence[OutboxRow]) -> None:
        """Send committed rows now, and remember when the delayed ones come due."""
        now = self._clock.now()
        ours = [row for row in outgoing if row.due_at > now]
        self._start(ours)
        if delayed or len(ours) < len(outgoing):
            self._due.expect(row.due_at for row in delayed)

    def wake(self, *at: datetime) -> None:
        """Look for due rows now, and at these times: a transaction past the executor has committed some."""
        self._due.expect(at)

    async def run(self) -> None:
        """Publish due rows until `stop`."""
        async with asyncio.TaskGroup() as tasks:  # a task group ignores a task that ends in CancelledError
            tasks.create_task(contain("claiming", self._due.run()))
            tasks.create_task(contain("deleting", self._confirmed.run()))

    def stop(self) -> None:
        """Let `run` return between two transactions: a cancelled transaction would leave its connection locked."""
        self._due.stop()
        self._confirmed.stop()

    async def drain(self) -> None:
        """Wait until all rows in flight are confirmed and deleted."""
        while self._sending:
            await asyncio.wait(self._sending)
        await self._confirmed.delete()

    def _room(self) -> int:
        return self._window - len(self._in_flight)

    def _start(self, rows: Sequence[OutboxRow]) -> None:
        rows = [row for row in rows if self._reserve(row)]
        for first in range(0, len(rows), _LARGEST_BURST):
            burst = rows[first : first + _LARGEST_BURST]
            self._bursts += 1
            task = asyncio.create_task(self._send(burst))
            self._sending.add(task)
            task.add_done_callback(partial(self._landed, burst))

    def _reserve(self, row: OutboxRow) -> bool:
        # One message id is in flight once: returns are matched by it. A second row with it waits for its lease.
        if row.id in self._in_flight or row.id in self._confirmed or row.message.message_id in self._message_ids:
            return False
        self._in_flight.add(row.id)
        self._message_ids.add(row.message.message_id)
        return True

    def _landed(self, burst: Sequence[OutboxRow], task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        before = len(self._in_flight)
        self._in_flight.difference_update(row.id for row in burst)
        self._message_ids.difference_update(row.message.message_id for row in burst)
        if before > self._window // 2 >= len(self._in_flight):  # half of it at once: each claim is a transaction
            self._due.expect(())

    async def _send(self, rows: Sequence[OutboxRow]) -> None:
        """Publish a burst, and do with each row what its outcome asks for."""
        since = now()
        outcomes = await self._publish(rows)
        confirmed, returned = [], []
        for row, error in zip(rows, outcomes, strict=True):
            if error is None or (row.optional and isinstance(error, UnroutableError)):
                confirmed.append(row)
            elif isinstance(error, UnroutableError):
                returned.append(row)
                log.warning("no queue is bound to the event", error=str(error), tries=row.tries + 1, **_facts(row))
            else:  # the row stays, and comes due again
                self._failures.inc()
                log.warning("publish failed", error=str(error), **_facts(row))
        if confirmed:
            self._confirm(confirmed, since)
        if returned:
            await self._put_back(returned)

    async def _publish(self, rows: Sequence[OutboxRow]) -> Sequence[Exception | None]:
        publish = self._publisher.publish_many([(row.message, row.destination) for row in rows])
        try:
            return await contain("publishing", failpoints.amid("published", publish, _types(rows)))
        except Exception as error:  # noqa: BLE001 -- whatever the broker's client raises, the relay goes on
            return [error] * len(rows)

    def _confirm(self, rows: Sequence[OutboxRow], since: int) -> None:
        failpoints.here("confirmed", _types(rows))
        self._confirmed.add_all(rows)
        self._confirms.inc(len(rows))
        if self._tracing:
            for row in rows:
                self._tracing.published(row.message, queue=row.destination, since=since)

    async def _put_back(self, rows: Sequence[OutboxRow]) -> None:
        """Keep events without a bound queue, and publish them again after a growing pause."""
        self._returns.inc(len(rows))
        now = self._clock.now()
        due = {row.id: now + min(timedelta(seconds=2 ** min(row.tries, 10)), _LONGEST_WAIT) for row in rows}
        try:
            with contained("putting back"):
                async with self._database.transaction() as session:
                    connection = await session.connection()
                    for row_id, due_at in due.items():
                        await outbox.put_back(connection, row_id, until=due_at)
        except Exception as failure:  # noqa: BLE001 -- the rows come due by their lease all the same
            self._due.back_off(failure)
        self._due.expect(due.values())


def _types(rows: Sequence[OutboxRow]) -> list[str | None]:
    return [row.message.type for row in rows]


def _facts(row: OutboxRow) -> dict[str, str | None]:
    message = row.message
    saga = {"saga_type": message.headers.get(SAGA_TYPE), "saga_id": message.correlation_id}
    facts = saga | {"event_id": message.message_id}
    return facts | trace_facts(row.message.headers.get(TRACEPARENT))
