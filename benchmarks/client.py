"""The client: places orders, so many at once, and takes the time from placing one to the event that ends it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.saga import ENDS, START


@dataclass(slots=True)
class Load:
    """What one load was, and how long it took: latencies and the whole, in seconds."""

    orders: int
    refused: int
    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Orders a second."""
        return self.orders / self.seconds


@dataclass(slots=True)
class Client:
    """Who places orders: `send` takes an order's id and its body, however they get to the first service."""

    send: Callable[[str, bytes], Awaitable[object]]
    _waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    async def place(self, orders: int, *, at_once: int, refused: float, patience: float) -> Load:
        """Have so many orders under way at once until all have ended; this share of them is refused on the way.

        Raises:
            TimeoutError: one has not ended after so many seconds.
        """
        numbers = iter(range(orders))
        latencies: list[float] = []
        share = [(number * refused) % 1 + refused >= 1 for number in range(orders)]
        begun = time.perf_counter()

        async def go_on(numbers: Iterator[int]) -> None:
            for number in numbers:
                latencies.append(await self._one(refuse=share[number], patience=patience))

        await asyncio.gather(*(go_on(numbers) for _ in range(min(at_once, orders))))
        return Load(orders, sum(share), time.perf_counter() - begun, latencies)

    async def _one(self, *, refuse: bool, patience: float) -> float:
        order_id = str(uuid4())
        ended = self._waiting[order_id] = asyncio.get_running_loop().create_future()
        body = json.dumps({"order_id": order_id, "refuse": refuse}).encode()
        begun = time.perf_counter()
        await self.send(order_id, body)
        async with asyncio.timeout(patience):
            await ended
        return time.perf_counter() - begun

    def consume(self, body: bytes) -> None:
        """Take note of an order's end, by its event's body."""
        ended = self._waiting.pop(json.loads(body)["order_id"], None)
        if ended and not ended.done():
            ended.set_result(None)


@asynccontextmanager
async def client(broker_url: str, exchange: str) -> AsyncIterator[Client]:
    """Connect, with a queue of the client's own for the ends."""
    connection = await aio_pika.connect(broker_url)
    async with connection, connection.channel() as channel:
        topic = await channel.declare_exchange(exchange, aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(exclusive=True)
        for end in ENDS:
            await queue.bind(topic, end)

        async def send(order_id: str, body: bytes) -> None:
            persistent = aio_pika.DeliveryMode.PERSISTENT
            message = aio_pika.Message(
                body, content_type="application/json", message_id=order_id, delivery_mode=persistent
            )
            await topic.publish(message, START)

        one = Client(send)

        async def consume(message: AbstractIncomingMessage) -> None:
            one.consume(message.body)

        await queue.consume(consume, no_ack=True)
        yield one
