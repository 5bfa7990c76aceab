"""A tap on the exchange that doubles and reorders messages, as a network with retries may.

Beside the services' bindings it sends late copies. In place of them every message passes through its window, and leaves
it in any order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import ChannelInvalidStateError

from toolkit import Settings
from toolkit.configuration.settings import queue_name
from toolkit.declaration.events import routing_key
from toolkit.declaration.service import Service
from toolkit.messaging.envelope import CONTROL_EVENTS

#: The header of a copy, and of messages that are not copied.
COPY = "x-copy"
#: After so many seconds without a message the window is emptied.
_IDLE = 0.2
#: A publish may wait for ever on a connection that was cut off: after so many seconds the tap opens another.
_STUCK = 20


@dataclass(eq=False, slots=True)
class _Parcel:
    """One pending delivery; its message is acknowledged with the last of its deliveries."""

    message: AbstractIncomingMessage
    queue: str
    is_copy: bool


class Tap:
    """Holds messages in a window, and publishes them in random order, some of them twice."""

    def __init__(
        self,
        settings: Settings,
        *,
        seed: int,
        share: float = 0.2,
        window: int = 50,
        routes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._settings = settings
        self._dice = random.Random(f"{seed}-tap")
        self._share, self._window, self._routes = share, window, routes
        self._name = f"{settings.exchange}.tap"
        self._waiting: list[_Parcel] = []
        self._open: dict[AbstractIncomingMessage, int] = {}
        self.delivered = self.doubled = self.shuffled = 0
        self.is_serving = False

    @property
    def is_empty(self) -> bool:
        """Whether its window is empty."""
        return not self._waiting

    async def run(self) -> None:
        """Forward messages until cancelled, across outages of the broker."""
        while True:
            try:
                await self._serve()
            except (aio_pika.exceptions.AMQPError, ChannelInvalidStateError, OSError, TimeoutError):
                await asyncio.sleep(0.5)  # the pause between two tries during an outage
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) and task.cancelling():
                    raise

    async def remove(self) -> None:
        """Delete the tap's queue."""
        connection = await aio_pika.connect(self._settings.broker_url)
        async with connection, connection.channel() as channel:
            await channel.queue_delete(self._name)

    async def _serve(self) -> None:
        connection = await aio_pika.connect(self._settings.broker_url, timeout=5, heartbeat=6)
        try:
            async with asyncio.timeout(_STUCK):
                channel, arrived = await self._consume(connection)
            while not channel.is_closed:
                async with asyncio.timeout(_STUCK):
                    await self._step(channel, arrived)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STUCK):
                    await connection.close()

    async def _consume(
        self, connection: AbstractConnection
    ) -> tuple[AbstractChannel, asyncio.Queue[AbstractIncomingMessage]]:
        """Bind the tap's queue, and return its messages' queue in this process."""
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=4 * self._window)
        exchange = await channel.declare_exchange(self._settings.exchange, type="topic", durable=True)
        queue = await channel.declare_queue(self._name, durable=True)
        await queue.bind(exchange, "#")
        if self._routes:
            await self._replace_bindings(channel)
        self._waiting.clear()
        self._open.clear()
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(arrived.put)
        self.is_serving = True
        return channel, arrived

    async def _replace_bindings(self, channel: AbstractChannel) -> None:
        for key, queues in (self._routes or {}).items():
            for name in queues:
                await (await channel.get_queue(name)).unbind(self._settings.exchange, key)

    async def _step(self, channel: AbstractChannel, arrived: asyncio.Queue[AbstractIncomingMessage]) -> None:
        """Receive one message, and publish one when the window is full; empty it when none comes."""
        try:
            async with asyncio.timeout(_IDLE):
                message = await arrived.get()
        except TimeoutError:
            while self._waiting:
                await self._let_go(channel)
            return
        await self._take(message)
        while len(self._waiting) > self._window:
            await self._let_go(channel)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        parcels = [_Parcel(message, queue, is_copy=False) for queue in self._queues(message)]
        if COPY not in message.headers:
            parcels += [
                _Parcel(message, parcel.queue, is_copy=True)
                for parcel in (parcels or [_Parcel(message, "", is_copy=True)])
                if self._dice.random() < self._share
            ]
        self._waiting += parcels
        self._open[message] = len(parcels)
        if not parcels:
            await self._close(message)

    def _queues(self, message: AbstractIncomingMessage) -> Sequence[str]:
        return (self._routes or {}).get(message.routing_key or "", ())

    async def _let_go(self, channel: AbstractChannel) -> None:
        place = self._dice.randrange(len(self._waiting))
        parcel = self._waiting.pop(place)
        await self._send(channel, parcel)
        self.delivered += 1
        self.doubled += parcel.is_copy
        self.shuffled += place > 0
        self._open[parcel.message] -= 1
        if not self._open[parcel.message]:
            await self._close(parcel.message)

    async def _send(self, channel: AbstractChannel, parcel: _Parcel) -> None:
        """Publish it to its queue, or under its key to all bound queues, marked as a copy."""
        original = parcel.message
        key = original.routing_key or ""
        message = aio_pika.Message(
            original.body,
            headers={**original.headers, COPY: 1},
            message_id=original.message_id,
            correlation_id=original.correlation_id,
            # Published to one queue, a foreign client's message loses its key, which is its type.
            type=original.type or key.rpartition(".")[2],
            timestamp=original.timestamp,
            content_type=original.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        if parcel.queue:
            await channel.default_exchange.publish(message, parcel.queue)
        else:
            exchange = await channel.get_exchange(self._settings.exchange, ensure=False)
            await exchange.publish(message, key, mandatory=False)

    async def _close(self, message: AbstractIncomingMessage) -> None:
        del self._open[message]
        await message.ack()


def routes_of(settings: Settings, services: Sequence[Service]) -> dict[str, list[str]]:
    """Return the queues of each routing key's consumers."""
    routes: dict[str, list[str]] = {}
    for service in services:
        for event in (*service.consumed(), *CONTROL_EVENTS):
            routes.setdefault(routing_key(event), []).append(queue_name(settings, service.name))
    return routes
