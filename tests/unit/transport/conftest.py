"""A queue on the real broker, with what it delivers and what is written to its socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue
from aiormq.abc import ChannelFrame
from pamqp import frame
from pamqp.commands import Basic

from tests.eventually import eventually
from toolkit.ids import new_id
from toolkit.transport.rabbitmq.delivery_batching import ReceivedDelivery, consume
from toolkit.transport.rabbitmq.frame_reading import read_frames_at_once
from toolkit.transport.rabbitmq.own_connections import connecting


@dataclass
class RecordedQueue:
    """A queue of the test, its deliveries, how many came by each call, and the writes to the socket."""

    channel: AbstractChannel
    queue: AbstractQueue
    delivered: list[ReceivedDelivery] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    writes: list[bytes] = field(default_factory=list)

    async def fill(self, count: int) -> None:
        """Publish so many messages, and wait for their delivery."""
        for number in range(count):
            message = aio_pika.Message(f"{number}".encode())
            await self.channel.default_exchange.publish(message, routing_key=self.queue.name)
        await self.consume()
        await self.delivers(count)
        self.writes.clear()

    async def consume(self) -> str:
        """Consume the queue, and return the consumer's tag."""
        tag = new_id()
        await consume(await self.channel.get_underlay_channel(), self.queue.name, tag, self._take)
        return tag

    async def delivers(self, count: int) -> None:
        """Wait until so many deliveries were made."""

        async def are_there() -> bool:
            return len(self.delivered) == count

        await eventually(are_there)

    async def unacknowledged(self) -> list[bytes]:
        """Return what the broker redelivers once the channel is closed."""
        await self.channel.close()
        connection = await aio_pika.connect(str(self.channel._connection.url))
        async with connection, connection.channel() as channel:
            queue = await channel.get_queue(self.queue.name)
            left = []
            while message := await queue.get(fail=False, no_ack=True):
                left.append(message.body)
            await queue.delete(
                if_empty=False
            )  # a broker that has just started may take an empty queue for a filled one
        return left

    def acknowledged(self) -> list[tuple[int, bool]]:
        """Return the written acknowledgements: the number of each, and whether it covers all before it."""
        frames = [frame.unmarshal(write)[2] for write in self.writes]
        return [(each.delivery_tag, each.multiple) for each in frames if isinstance(each, Basic.Ack)]

    def _take(self, deliveries: Sequence[ReceivedDelivery]) -> None:
        self.delivered += deliveries
        self.calls.append(len(deliveries))


@pytest.fixture
async def recorded(request, rabbitmq, prefix) -> AsyncIterator[RecordedQueue]:
    """A queue on a connection as the library opens it; on one of the toolkit's by the parameter "own"."""
    read_frames_at_once()
    with connecting() if getattr(request, "param", None) == "own" else nullcontext():
        connection = await aio_pika.connect(rabbitmq.url)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        queue = await channel.declare_queue(f"{prefix}.recorded", durable=True)
        recorded = RecordedQueue(channel, queue)
        underlay = await channel.get_underlay_channel()
        queue_put = underlay.connection.write_queue.put_nowait

        def put(written: ChannelFrame) -> None:
            recorded.writes.append(written.payload)
            queue_put(written)

        underlay.connection.write_queue.put_nowait = put
        yield recorded
