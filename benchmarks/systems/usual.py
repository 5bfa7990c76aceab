"""The usual stack as a team would write it today: FastStream and SQLModel, a transaction a message, an outbox.

As fast as this stack gets: a pool of connections, many messages at once, a relay that wakes at the commit and publishes
a hundred rows at a time.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any
from uuid import uuid4

from faststream import AckPolicy
from faststream.rabbit import Channel, ExchangeType, QueueType, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue
from sqlalchemy import Column, LargeBinary, MetaData, delete
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.saga import ENDS, ROUTES, Route
from benchmarks.systems.process import Assignment, work

tables = MetaData()


class Base(SQLModel, registry=registry(metadata=tables)):
    """The tables of each service."""


class Effect(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    order_id: str
    amount: int


class ProcessedEvent(Base, table=True):
    id: str = Field(primary_key=True)


class SagaLog(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    saga_id: str = Field(index=True)
    step: str
    state: str
    event_id: str
    emitted_type: str


class Outbox(Base, table=True):
    id: str = Field(primary_key=True)
    key: str
    body: bytes = Field(sa_column=Column(LargeBinary))


class Service:
    """One service."""

    def __init__(self, name: str, broker: RabbitBroker, engine: AsyncEngine, exchange: RabbitExchange) -> None:
        self.name, self.broker, self.engine, self.exchange = name, broker, engine, exchange
        self.routes: dict[str, Route] = {route.consumes: route for route in ROUTES if route.service == name}
        self.wake = asyncio.Event()
        queue = RabbitQueue(f"{exchange.name}.{name}", durable=True, queue_type=QueueType.QUORUM)
        self.queue = queue
        subscriber = broker.subscriber(queue, ack_policy=AckPolicy.MANUAL, channel=Channel(prefetch_count=100))
        subscriber(self.handle)

    async def bind(self) -> None:
        """Bind the queue to the events that the service consumes."""
        exchange = await self.broker.declare_exchange(self.exchange)
        queue = await self.broker.declare_queue(self.queue)
        for key in self.routes:
            await queue.bind(exchange, key)

    async def handle(self, event: dict[str, Any], message: RabbitMessage) -> None:
        """Execute a step: guard, effect, log and outbox in one transaction; then acknowledge."""
        route = self.routes[str(message.raw_message.routing_key)]
        refuses = bool(route.refuses_with and event.get("refuse"))
        emits = route.refuses_with if refuses and route.refuses_with else route.emits
        async with AsyncSession(self.engine) as session:
            if await session.get(ProcessedEvent, message.message_id) is None:
                session.add(ProcessedEvent(id=message.message_id))
                if not refuses:
                    session.add(Effect(order_id=event["order_id"], amount=route.amount))
                state = "compensated" if route.undoes else "failed" if refuses else "completed"
                session.add(
                    SagaLog(
                        saga_id=event["order_id"],
                        step=route.step,
                        state=state,
                        event_id=message.message_id,
                        emitted_type=emits,
                    )
                )
                session.add(Outbox(id=str(uuid4()), key=emits, body=json.dumps(event).encode()))
                await session.commit()
        await message.ack()
        self.wake.set()

    async def relay(self) -> None:
        """Publish what is in the outbox, woken at each commit, and by a poll."""
        while True:
            async with AsyncSession(self.engine) as session:
                rows = (await session.exec(select(Outbox).limit(100))).all()
                if rows:
                    await asyncio.gather(*(self.publish(row) for row in rows))
                    await session.exec(delete(Outbox).where(col(Outbox.id).in_([row.id for row in rows])))
                    await session.commit()
            if not rows:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), 0.1)
                self.wake.clear()

    async def publish(self, row: Outbox) -> None:
        """Publish one row, and await its confirm."""
        await self.broker.publish(
            json.loads(row.body), exchange=self.exchange, routing_key=row.key, message_id=row.id, persist=True,
            mandatory=row.key not in ENDS,
        )  # fmt: skip


async def run(assignment: Assignment, stopped: asyncio.Event) -> None:
    """Run the services that have a database in the assignment."""
    broker = RabbitBroker(
        assignment.broker, default_channel=Channel(publisher_confirms=True, on_return_raises=True), logger=None
    )
    exchange = RabbitExchange(assignment.exchange, type=ExchangeType.TOPIC, durable=True)
    services = []
    for name, url in assignment.databases.items():
        engine = create_async_engine(
            url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=10, max_overflow=10
        )
        async with engine.begin() as connection:
            await connection.run_sync(tables.create_all)
        services.append(Service(name, broker, engine, exchange))
    await broker.connect()
    for service in services:
        await service.bind()
    await broker.start()
    relays = [asyncio.create_task(service.relay()) for service in services]
    print("ready", flush=True)
    await stopped.wait()
    for relay in relays:
        relay.cancel()
    await broker.stop()


if __name__ == "__main__":
    work(run)
