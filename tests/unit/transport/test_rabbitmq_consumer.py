"""What the toolkit adds to the broker's client: a consumer, joined writes, one acknowledgement for many deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue, AbstractRobustChannel
from aio_pika.exceptions import ChannelInvalidStateError, ChannelNotFoundEntity
from aiormq.abc import ChannelFrame, DeliveredMessage
from pamqp import frame
from pamqp.commands import Basic

from tests.end_to_end.proxy import Proxy, Way
from tests.eventually import eventually
from toolkit.transport.rabbitmq.acknowledgements import AWAY, Acks
from toolkit.transport.rabbitmq.consumer import Consumer
from toolkit.transport.rabbitmq.write_batching import join_writes


@dataclass
class Post:
    """A queue of the test's own, what it delivered, and what was written to the socket meanwhile."""

    channel: AbstractChannel
    queue: AbstractQueue
    delivered: list[DeliveredMessage] = field(default_factory=list)
    writes: list[bytes] = field(default_factory=list)

    async def fill(self, count: int) -> None:
        """Have so many messages delivered."""
        for number in range(count):
            message = aio_pika.Message(f"{number}".encode())
            await self.channel.default_exchange.publish(message, routing_key=self.queue.name)
        channel = await self.channel.get_underlay_channel()
        await channel.basic_consume(self.queue.name, self._take)
        await self.delivers(count)
        self.writes.clear()

    async def delivers(self, count: int) -> None:
        """Wait until so many deliveries were made."""

        async def are_there() -> bool:
            return len(self.delivered) == count

        await eventually(are_there)

    async def unacknowledged(self) -> list[bytes]:
        """Return what the broker delivers again once the channel is closed."""
        await self.channel.close()
        connection = await aio_pika.connect(str(self.channel._connection.url))
        async with connection, connection.channel() as channel:
            queue = await channel.get_queue(self.queue.name)
            left = []
            while message := await queue.get(fail=False, no_ack=True):
                left.append(message.body)
            await queue.delete(if_empty=False)  # a broker that has just begun may take an empty one for one that is not
        return left

    def acknowledged(self) -> list[tuple[int, bool]]:
        """Return the acknowledgements that were written: each up to which number, and whether of all before it."""
        frames = [frame.unmarshal(write)[2] for write in self.writes]
        return [(each.delivery_tag, each.multiple) for each in frames if isinstance(each, Basic.Ack)]

    async def _take(self, message: DeliveredMessage) -> None:
        self.delivered.append(message)


@pytest.fixture
async def post(rabbitmq, prefix) -> AsyncIterator[Post]:
    connection = await aio_pika.connect(rabbitmq.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(f"{prefix}.post", durable=True)
        post = Post(channel, queue)
        underlay = await channel.get_underlay_channel()
        queue_put = underlay.connection.write_queue.put

        async def put(written: ChannelFrame) -> None:
            post.writes.append(written.payload)
            await queue_put(written)

        underlay.connection.write_queue.put = put
        yield post


async def test_what_is_done_in_one_turn_is_acknowledged_by_one_frame(post):
    acks = Acks()
    await post.fill(5)

    for message in post.delivered:
        acks.acknowledge(message)
    await acks.finish()

    assert post.acknowledged() == [(5, True)]
    assert await post.unacknowledged() == []


async def test_what_is_done_ahead_of_an_older_delivery_does_not_acknowledge_that(post):
    acks = Acks()
    await post.fill(5)

    for number in (1, 2, 4, 0):
        acks.acknowledge(post.delivered[number])
    await acks.finish()

    assert post.acknowledged() == [(3, True), (5, False)]
    assert await post.unacknowledged() == [b"3"]


async def test_an_acknowledgement_of_many_names_none_that_was_acknowledged_before(post):
    acks = Acks()
    await post.fill(6)

    for turn in ((1, 2, 5), (0, 3), (4,)):
        for number in turn:
            acks.acknowledge(post.delivered[number])
        await acks.finish()

    assert post.acknowledged() == [(2, False), (3, False), (6, False), (4, True), (5, True)]
    assert not post.channel.is_closed  # the broker closes it where a number is not known any more
    assert await post.unacknowledged() == []


async def test_what_is_given_back_is_not_acknowledged_with_those_behind_it(post):
    acks = Acks()
    await post.fill(3)

    await acks.give_back(post.delivered[0])
    await post.delivers(4)
    for number in (1, 2):
        acks.acknowledge(post.delivered[number])
    await acks.finish()

    assert post.acknowledged() == [(3, True)]
    assert post.delivered[3].redelivered
    assert await post.unacknowledged() == [b"0"]


async def test_what_is_given_back_while_its_channel_closes_is_no_delivery_of_the_next_one(post):
    acks, held, may_fail = Acks(), asyncio.Event(), asyncio.Event()
    await post.fill(3)
    first = await post.channel.get_underlay_channel()
    put = first.connection.write_queue.put

    async def hold(written: ChannelFrame) -> None:
        if isinstance(frame.unmarshal(written.payload)[2], Basic.Reject):
            held.set()
            await may_fail.wait()
            raise ChannelInvalidStateError("closed meanwhile")
        await put(written)

    first.connection.write_queue.put = hold
    giving_back = asyncio.create_task(acks.give_back(post.delivered[0]))
    await held.wait()
    await post.channel.close()
    await post.channel.reopen()
    second = await post.channel.get_underlay_channel()
    await second.basic_consume(post.queue.name, post._take)
    await post.delivers(6)
    acks.acknowledge(post.delivered[4])
    await acks.finish()
    may_fail.set()
    await giving_back
    acks.acknowledge(post.delivered[5])
    await acks.finish()

    assert second is not first
    assert await post.unacknowledged() == [post.delivered[3].body]


async def test_a_delivery_of_a_channel_that_has_closed_is_left_to_come_again(post):
    acks = Acks()
    await post.fill(2)
    acks.acknowledge(post.delivered[0])
    await acks.finish()

    await post.channel.close()
    acks.acknowledge(post.delivered[1])
    await acks.finish()

    assert await post.unacknowledged() == [b"1"]


@dataclass
class Ear:
    """A consumer on a channel that comes back, what it heard, and another's channel upon its queue."""

    consumer: Consumer
    channel: AbstractRobustChannel
    other: AbstractChannel
    queue: str
    heard: list[bytes]

    async def declare(self) -> int:
        """Have the queue, and return how many consume it."""
        queue = await self.other.declare_queue(self.queue, durable=True)
        return queue.declaration_result.consumer_count or 0

    async def reopen(self) -> None:
        """Have the broker close the channel, and wait until it is opened anew."""
        reopened = asyncio.Event()
        self.channel.reopen_callbacks.add(lambda _: reopened.set())
        underlay = await self.channel.get_underlay_channel()
        await underlay.basic_ack(1_000)  # of a delivery that was never made
        async with asyncio.timeout(5):
            await reopened.wait()
            await self.channel.restore()  # one at a time: this one begins after that has ended

    async def hears(self, what: bytes) -> None:
        """Publish a message, and wait until it is heard."""
        await self.other.default_exchange.publish(aio_pika.Message(what), routing_key=self.queue)

        async def is_heard() -> bool:
            return what in self.heard

        await eventually(is_heard)


@pytest.fixture
async def ear(rabbitmq, prefix) -> AsyncIterator[Ear]:
    robust, other = await aio_pika.connect_robust(rabbitmq.url), await aio_pika.connect(rabbitmq.url)
    async with robust, other:
        channel, heard, queue = await robust.channel(), [], f"{prefix}.ear"
        consumer = Consumer(channel, queue, partial(_consume, heard))
        ear = Ear(consumer, channel, await other.channel(), queue, heard)
        yield ear
        await ear.other.queue_delete(queue)


async def test_a_consumer_goes_on_where_the_broker_closed_its_channel(ear):
    await ear.declare()
    await ear.consumer.consume()
    await ear.hears(b"before")

    await ear.reopen()

    await ear.hears(b"after")
    assert not ear.consumer.ended.is_set()


async def test_a_consumer_says_that_the_broker_ended_it_and_begins_anew(ear):
    await ear.declare()
    await ear.consumer.consume()

    await ear.other.queue_delete(ear.queue)
    async with asyncio.timeout(5):
        await ear.consumer.ended.wait()
    await ear.declare()
    await ear.consumer.consume()
    await ear.hears(b"after")

    assert await ear.declare() == 1


async def test_a_consumer_begins_once_and_ends_when_it_is_told_to(ear):
    await ear.declare()
    await ear.consumer.consume()
    await ear.consumer.consume()

    assert await ear.declare() == 1
    await ear.consumer.cancel()
    await ear.reopen()
    assert await ear.declare() == 0


async def test_a_queue_that_was_not_there_is_consumed_once_it_is(ear):
    with pytest.raises(ChannelNotFoundEntity):
        await ear.consumer.consume()

    await ear.declare()
    await eventually(partial(_consumes, ear.consumer))
    await ear.hears(b"there")

    assert await ear.declare() == 1


async def _consumes(consumer: Consumer) -> bool:
    with suppress(*AWAY):  # until the channel that the broker closed is opened anew
        await consumer.consume()
        return True
    return False


async def _consume(heard: list[bytes], message: DeliveredMessage) -> None:
    heard.append(message.body)


async def test_messages_that_are_published_at_once_are_one_write_and_each_is_confirmed(post):
    channel = join_writes(await post.channel.get_underlay_channel())
    post.writes.clear()

    publishing = [
        channel.basic_publish(f"{number}".encode(), routing_key=post.queue.name, wait=False) for number in range(100)
    ]
    confirms = await asyncio.gather(*publishing)

    assert len(post.writes) == 1
    assert all(isinstance(confirm, Basic.Ack) for confirm in confirms)
    assert await post.unacknowledged() == [f"{number}".encode() for number in range(100)]


async def test_a_channel_that_joins_its_writes_says_why_the_broker_closed_it(post):
    channel = join_writes(await post.channel.get_underlay_channel())

    publishing = [channel.basic_publish(b"", exchange="there is none", routing_key="x", wait=False) for _ in range(3)]
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*publishing, return_exceptions=True)

    assert [type(each) for each in ended] == [ChannelNotFoundEntity] * 3
    assert channel.is_closed
    assert await post.unacknowledged() == []


async def test_a_broker_that_takes_nothing_does_not_fill_our_memory(rabbitmq, prefix):
    async with Proxy(rabbitmq.url) as proxy:
        connection = await aio_pika.connect(proxy.through(rabbitmq.url))
        channel = join_writes(await (await connection.channel()).get_underlay_channel())
        proxy.cut(Way.OUT)

        async def publish() -> None:
            async with asyncio.timeout(0.2):
                await channel.basic_publish(b"x" * 10_000, routing_key="nobody", wait=False)

        for _ in range(10):
            ended = await asyncio.gather(*(publish() for _ in range(1_000)), return_exceptions=True)
            assert {type(each) for each in ended} == {TimeoutError}
        taken = channel.delivery_tag

        proxy.heal()
        async with asyncio.timeout(10):  # what was taken goes out, and the channel is as well as ever
            await channel.basic_publish(b"", routing_key="nobody", wait=False)
        await connection.close()

    assert taken < 5_000


async def test_what_asks_for_an_answer_is_written_in_its_place_among_what_is_joined(post):
    channel = join_writes(await post.channel.get_underlay_channel())

    publishing = [
        asyncio.create_task(channel.basic_publish(b"", routing_key=post.queue.name, wait=wait))
        for wait in (False, True, False)
    ]
    declared = await channel.queue_declare(post.queue.name, passive=True)
    await asyncio.gather(*publishing)

    assert declared.queue == post.queue.name
    assert len(await post.unacknowledged()) == 3


async def test_joining_the_writes_of_a_channel_twice_is_joining_them_once(post):
    channel = await post.channel.get_underlay_channel()

    once = join_writes(channel).write_queue

    assert join_writes(channel).write_queue is once
