"""A hand-written loop with a statement a table, and a task a message: six round trips a batch.

The same guarantees and rows as the limit's; as such loops are usually written, without a thought for the cost of each
message.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiormq
import asyncpg
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from benchmarks.saga import ENDS, ROUTES, Route
from benchmarks.systems.process import Assignment, work

BATCH, PREFETCH = 100, 400
ENDED = "control.Ended"

TABLES = """
CREATE TABLE IF NOT EXISTS saga_log (
    saga_id text, step text, position int, state text, event_id text, emitted_id text, emitted_type text, body bytea,
    at timestamptz, PRIMARY KEY (saga_id, step, position)
);
CREATE TABLE IF NOT EXISTS effect (id bigserial PRIMARY KEY, order_id text, amount int);
CREATE TABLE IF NOT EXISTS outbox (id text PRIMARY KEY, key text, body bytea);
"""
LOG = """
INSERT INTO saga_log SELECT * FROM unnest(
    $1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::timestamptz[]
) ON CONFLICT DO NOTHING RETURNING emitted_id
"""
EFFECT = "INSERT INTO effect (order_id, amount) SELECT * FROM unnest($1::text[], $2::int[])"
OUTBOX = "INSERT INTO outbox SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])"
CONFIRM = """
INSERT INTO saga_log
SELECT saga_id, step, position + 1, 'confirmed', $2, NULL, NULL, NULL, now() FROM saga_log
WHERE saga_id = ANY($1) AND state = 'completed' ON CONFLICT DO NOTHING
"""
DELETE = "DELETE FROM outbox WHERE id = ANY($1)"


class Service:
    """One service."""

    def __init__(self, name: str, assignment: Assignment, pool: asyncpg.Pool, channel: AbstractChannel) -> None:
        self.name, self.exchange, self.pool, self.channel = name, assignment.exchange, pool, channel
        self.queues = assignment.queues
        self.routes: dict[str, Route] = {route.consumes: route for route in ROUTES if route.service == name}
        self.waiting: deque[DeliveredMessage] = deque()
        self.arrived = asyncio.Event()
        self.sending: set[asyncio.Task[None]] = set()

    async def start(self, connection: aiormq.Connection) -> None:
        """Declare, bind and consume."""
        consuming = await connection.channel()
        await consuming.basic_qos(prefetch_count=PREFETCH)
        queue = f"{self.exchange}.{self.name}"
        await consuming.exchange_declare(self.exchange, exchange_type="topic", durable=True)
        await consuming.queue_declare(queue, durable=True, arguments={"x-queue-type": self.queues})
        for key in (*self.routes, ENDED):
            await consuming.queue_bind(queue, self.exchange, key)
        await consuming.basic_consume(queue, self.consume)

    async def consume(self, message: DeliveredMessage) -> None:
        """Enqueue a delivery."""
        self.waiting.append(message)
        self.arrived.set()

    async def run(self) -> None:
        """Commit batch after batch."""
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            while self.waiting:
                await self.settle([self.waiting.popleft() for _ in range(min(BATCH, len(self.waiting)))])

    async def settle(self, batch: list[DeliveredMessage]) -> None:
        """Commit a batch, acknowledge it, and publish the events that follow."""
        now = datetime.now(UTC)
        rows, ended = [], []
        for message in batch:
            key = str(message.routing_key)
            if key == ENDED:
                ended += json.loads(message.body)["orders"]
            else:
                rows.append(_row(self.routes[key], message, now))
        out: list[tuple[str, str, bytes]] = []
        async with self.pool.acquire() as connection, connection.transaction():
            if rows:
                fresh = {row[0] for row in await connection.fetch(LOG, *_columns(rows, 9))}
                done = [row for row in rows if row[5] in fresh]
                out = [(row[5], row[6], row[7]) for row in done]
                if ending := [row[0] for row in done if row[6] in ENDS]:
                    out.append((str(uuid4()), ENDED, json.dumps({"orders": ending}).encode()))
                effects = [(row[0], row[9]) for row in done if row[9]]
                await connection.execute(EFFECT, *_columns(effects, 2))
                await connection.execute(OUTBOX, *_columns(out, 3))
            if ended:
                await connection.execute(CONFIRM, ended, str(batch[-1].header.properties.message_id))
        await batch[-1].channel.basic_ack(batch[-1].delivery_tag or 0, multiple=True)
        if out:
            task = asyncio.create_task(self.send(out))
            self.sending.add(task)
            task.add_done_callback(self.sending.discard)

    async def send(self, out: list[tuple[str, str, bytes]]) -> None:
        """Publish in one burst, and delete what was confirmed."""
        await asyncio.gather(*(self.publish(*row) for row in out))
        await self.pool.execute(DELETE, [row[0] for row in out])

    async def publish(self, message_id: str, key: str, body: bytes) -> None:
        """Publish one message, and await its confirm."""
        properties = Basic.Properties(message_id=message_id, delivery_mode=2, content_type="application/json")
        await self.channel.basic_publish(
            body, exchange=self.exchange, routing_key=key, properties=properties, mandatory=key not in ENDS
        )


def _row(route: Route, message: DeliveredMessage, now: datetime) -> tuple[Any, ...]:
    event = json.loads(message.body)
    refuses = route.refuses_with and event.get("refuse")
    emits = route.refuses_with if refuses else route.emits
    state = "compensated" if route.undoes else "failed" if refuses else "completed"
    order = event["order_id"]
    return (
        order, route.step, 2 if route.undoes else 1, state, message.header.properties.message_id, str(uuid4()), emits,
        message.body, now, 0 if refuses else route.amount,
    )  # fmt: skip


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(width)]


async def _as_it_is(_: object) -> None:
    """Reset nothing when a connection returns to the pool: no statement here changes a setting."""


async def run(assignment: Assignment, stopped: asyncio.Event) -> None:
    """Run the services that have a database in the assignment."""
    connection = await aiormq.connect(assignment.broker)
    publishing = await aiormq.connect(assignment.broker)
    running = []
    for name, url in assignment.databases.items():
        pool = await asyncpg.create_pool(url, min_size=2, max_size=4, reset=_as_it_is)
        await pool.execute(TABLES)
        service = Service(name, assignment, pool, await publishing.channel(publisher_confirms=True))
        await service.start(connection)
        running.append(asyncio.create_task(service.run()))
        for row in await pool.fetch("SELECT id, key, body FROM outbox"):  # unsent rows of the last run
            await service.send([tuple(row)])
    print("ready", flush=True)
    await stopped.wait()


if __name__ == "__main__":
    work(run)
