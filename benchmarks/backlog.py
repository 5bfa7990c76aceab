"""How fast one process drains a backlog of expired orders, beside a loop by hand that can do nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aio_pika
import asyncpg

from benchmarks.catalogue import System
from benchmarks.measure import peak_memory
from benchmarks.running import Servers, remove, started
from benchmarks.systems.process import Assignment
from services.events import InventoryReservationFailed, OrderCreated, order_saga
from services.inventory.app import app
from tests.conftest import PostgresDatabases
from tests.eventually import eventually
from toolkit import Settings
from toolkit.declaration.events import documented_example, routing_key
from toolkit.ids import new_id
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

#: The events of the backlog, and the seconds that draining them may take, publishing included.
EVENTS, _LONGEST = 100_000, 150.0
#: How many are published at once, and how old they are: far beyond the step's timeout.
_AT_ONCE, _AGE = 1_000, timedelta(hours=1)
_TOOLKIT = System(name="toolkit", module="benchmarks.systems.expired")
_BY_HAND = System(name="by hand", module="benchmarks.systems.by_hand.expired")
#: The refused orders, and the seconds from the first entry to the last; each order has one entry.
_REFUSED = """
SELECT count(DISTINCT saga_id) AS orders, count(*) AS entries,
    extract(epoch FROM max(at) - min(at))::float8 AS seconds, (SELECT count(*) FROM saga_outbox) AS unsent
FROM saga_log
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """A backlog that the toolkit drained; `limit` is the rate of the loop by hand, in events a second."""

    events: int
    events_per_second: float
    limit: float
    peak_memory: float


async def drain(servers: Servers, events: int = EVENTS) -> Backlog:
    """Drain one backlog after the other."""
    limit, _ = await _drained(_BY_HAND, servers, events)
    reached, memory = await _drained(_TOOLKIT, servers, events)
    return Backlog(events=events, events_per_second=reached, limit=limit, peak_memory=memory)


async def _drained(system: System, servers: Servers, events: int) -> tuple[float, float]:
    """Have a system drain a backlog; return its events a second, and its highest memory in MiB.

    It runs twice: first to make the queue and the tables.
    """
    databases = PostgresDatabases(servers.postgres)
    url = await databases.url(app.name)
    assignment = Assignment(broker=servers.broker, exchange=f"bench-{new_id()[-12:]}", databases={app.name: url})
    try:
        async with started(system, assignment, servers):
            pass
        await _place(assignment, events)
        async with started(system, assignment, servers) as (process,):
            seconds = await _seconds(url, events)
            memory = peak_memory([process])
        return events / seconds, memory
    finally:
        await remove(assignment, f"{assignment.exchange}.refusals")
        await databases.drop()


async def _place(assignment: Assignment, events: int) -> None:
    """Bind a queue to the refusals, and publish expired orders."""
    connection = await aio_pika.connect(assignment.broker)
    async with connection, connection.channel() as channel:
        quorum = {"x-queue-type": "quorum"}
        refusals = await channel.declare_queue(f"{assignment.exchange}.refusals", durable=True, arguments=quorum)
        await refusals.bind(assignment.exchange, routing_key(InventoryReservationFailed))
    async with RabbitPublisher(Settings(broker_url=assignment.broker, exchange=assignment.exchange)) as publisher:
        for first in range(0, events, _AT_ONCE):
            burst = [(_expired(number), None) for number in range(first, min(first + _AT_ONCE, events))]
            if any(errors := await publisher.publish_many(burst)):
                raise RuntimeError(f"an order was not published: {next(filter(None, errors))}")


def _expired(number: int) -> WireMessage:
    order_id, occurred_at = f"order-{number}", datetime.now(UTC) - _AGE
    saga = order_saga.name, order_id
    envelope = Envelope.of(OrderCreated, saga=saga, occurred_at=occurred_at)
    return envelope.wrap(json.dumps(documented_example(OrderCreated) | {"order_id": order_id}).encode(), OrderCreated)


async def _seconds(url: str, events: int) -> float:
    """Return the seconds that the refusals took, once all are published.

    Raises:
        AssertionError: not each order was refused once, in time.
    """
    connection = await asyncpg.connect(url)

    async def refused() -> asyncpg.Record | None:
        row = await connection.fetchrow(_REFUSED)
        return row if row["entries"] >= events and not row["unsent"] else None

    try:
        row = await eventually(refused, within=_LONGEST, every=0.5, what="the refusals")
    finally:
        await connection.close()
    assert row
    assert row["orders"] == row["entries"] == events, f"{row['entries']} entries of {row['orders']} orders"
    return float(row["seconds"])
