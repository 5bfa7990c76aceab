"""The client: places orders, so many at once, and takes the time from placing one to the event that ends it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

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
    """Who places orders."""

    exchange: AbstractExchange
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
        message = aio_pika.Message(
            body, content_type="application/json", message_id=order_id, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        begun = time.perf_counter()
        await self.exchange.publish(message, START)
        async with asyncio.timeout(patience):
            await ended
        return time.perf_counter() - begun

    def hear(self, message: AbstractIncomingMessage) -> None:
        """Take note of an order's end."""
        ended = self._waiting.pop(str(_order_of(message)), None)
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
        one = Client(topic)

        async def hear(message: AbstractIncomingMessage) -> None:
            one.hear(message)

        await queue.consume(hear, no_ack=True)
        yield one


def _order_of(message: AbstractIncomingMessage) -> Any:
    return json.loads(message.body)["order_id"]
