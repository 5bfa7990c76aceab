"""The deliveries of one turn are handed over by one call, in their order, and without a task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aio_pika
import pytest
from aio_pika.exceptions import ChannelPreconditionFailed
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.commands import Channel as ChannelMethods
from pamqp.header import ContentHeader

from tests.eventually import becomes_true
from toolkit.transport.rabbitmq.acknowledgements import Acks
from toolkit.transport.rabbitmq.delivery_batching import ReceivedDelivery, consume

#: More than one frame of a body holds, by RabbitMQ's default of 128 KiB.
LARGE = bytes(range(256)) * 2_000


class Line:
    """A consumer on a real channel, into which a test feeds frames as the connection does."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.calls: list[list[bytes]] = []

    async def feed(self, *frames: Any) -> None:
        for frame in frames:
            await self.channel.frames.put((0, frame))

    async def deliver(self, *parts: bytes, tag: str = "mine", size: int | None = None) -> None:
        await self.feed(
            Basic.Deliver(tag, 1, routing_key="x"),
            ContentHeader(body_size=sum(map(len, parts)) if size is None else size),
            *map(ContentBody, parts),
        )

    def take(self, deliveries: Sequence[ReceivedDelivery]) -> None:
        self.calls.append([each.body for each in deliveries])


@pytest.fixture
async def line(rabbitmq, prefix) -> AsyncIterator[Line]:
    connection = await aio_pika.connect(rabbitmq.url)
    channel = await (await connection.channel()).get_underlay_channel()
    await channel.queue_declare(prefix, exclusive=True)
    line = Line(channel)
    await consume(channel, prefix, "mine", line.take)
    yield line
    await connection.close()


async def test_deliveries_of_one_turn_are_one_call(line):
    tasks = []

    def count(loop: asyncio.AbstractEventLoop, coroutine: Any, **facts: Any) -> asyncio.Task[Any]:
        tasks.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **facts)

    asyncio.get_running_loop().set_task_factory(count)
    for number in range(200):
        await line.deliver(f"{number}".encode())
    was_called = bool(line.calls)
    await asyncio.sleep(0)
    asyncio.get_running_loop().set_task_factory(None)

    assert not was_called
    assert line.calls == [[f"{number}".encode() for number in range(200)]]
    assert tasks == []


async def test_a_body_of_several_frames_is_joined(line):
    await line.deliver(b"one", b"two", b"three")
    await line.deliver(size=0)
    await asyncio.sleep(0)

    assert line.calls == [[b"onetwothree", b""]]


@pytest.mark.parametrize("recorded", ["own", "the application's"], indirect=True)
async def test_a_broker_delivers_small_and_large_bodies(recorded):
    bodies = [b"", b"small", LARGE, b"", LARGE[1:], b"last"]
    for body in bodies:
        await recorded.channel.default_exchange.publish(aio_pika.Message(body), routing_key=recorded.queue.name)

    await recorded.consume()
    await recorded.delivers(len(bodies))

    assert [each.body for each in recorded.delivered] == bodies
    assert [each.tag for each in recorded.delivered] == [1, 2, 3, 4, 5, 6]


async def test_a_delivery_cut_by_a_close_is_dropped(line):
    await line.deliver(b"whole")
    await line.deliver(b"half", size=8)
    await line.feed(ChannelMethods.Close(406, "PRECONDITION_FAILED", 60, 80))
    was = list(line.calls)
    await becomes_true(lambda: line.channel.is_closed, what="the close")

    assert was == line.calls == [[b"whole"]]
    with pytest.raises(ChannelPreconditionFailed):
        await line.channel.closing


async def test_deliveries_precede_the_end_of_their_consumer(line):
    seen: list[Any] = []
    line.channel.on_consumer_cancel_callbacks.add(lambda _: seen.append(list(line.calls)))

    await line.deliver(b"before")
    await line.feed(Basic.Cancel("mine"))
    await becomes_true(lambda: bool(seen), what="the end")
    await line.deliver(b"after")
    await asyncio.sleep(0)

    assert seen == [[[b"before"]]]
    assert line.calls == [[b"before"]]


async def test_another_consumer_of_the_channel_receives_its_own(line):
    received: list[bytes] = []

    async def take(message: DeliveredMessage) -> None:
        received.append(message.body)

    line.channel.consumers["other"] = take
    await line.deliver(b"mine")
    await line.deliver(b"an", b"other", tag="other")
    await line.deliver(b"mine, too")
    await becomes_true(lambda: bool(received), what="the other's delivery")

    assert received == [b"another"]
    assert line.calls == [[b"mine"], [b"mine, too"]]


async def test_a_later_consumer_of_the_channel_takes_over(line, prefix):
    await line.channel.basic_cancel("mine")
    later = Line(line.channel)

    await consume(line.channel, prefix, "later", later.take)
    await line.deliver(b"one", tag="later")
    await line.deliver(b"two", tag="later")
    await asyncio.sleep(0)

    assert later.calls == [[b"one", b"two"]]
    assert line.calls == []


async def test_a_channel_without_that_queue_is_consumed(recorded):
    channel = await recorded.channel.get_underlay_channel()

    class Frames:
        """A queue of another kind, as a later release of the library may have."""

        get, put, task_done = channel.frames.get, channel.frames.put, channel.frames.task_done

    channel.frames = Frames()
    await recorded.fill(3)

    assert recorded.calls == [1, 1, 1]
    acks = Acks()
    acks.acknowledge(recorded.delivered)
    await acks.finish()
    assert recorded.acknowledged() == [(3, True)]
