"""A queue's consumer resumes on a reopened channel, and after the broker ended it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractRobustChannel
from aio_pika.exceptions import ChannelNotFoundEntity

from tests.eventually import eventually
from toolkit.transport.rabbitmq.acknowledgements import AWAY
from toolkit.transport.rabbitmq.delivery_batching import ReceivedDelivery
from toolkit.transport.rabbitmq.queue_consumer import QueueConsumer


@dataclass
class Subscription:
    """A consumer on a robust channel, what it received, and another channel to its queue."""

    consumer: QueueConsumer
    channel: AbstractRobustChannel
    other: AbstractChannel
    queue: str
    received: list[bytes]

    async def declare(self) -> int:
        """Declare the queue, and return how many consume it."""
        queue = await self.other.declare_queue(self.queue, durable=True)
        return queue.declaration_result.consumer_count or 0

    async def reopen(self) -> None:
        """Let the broker close the channel, and wait until it is reopened."""
        reopened = asyncio.Event()
        self.channel.reopen_callbacks.add(lambda _: reopened.set())
        underlay = await self.channel.get_underlay_channel()
        await underlay.basic_ack(1_000)  # of a delivery that was never made
        async with asyncio.timeout(5):
            await reopened.wait()
            await self.channel.restore()  # one at a time: this one begins after the other has ended

    async def receives(self, what: bytes) -> None:
        """Publish a message, and wait until it is received."""
        await self.other.default_exchange.publish(aio_pika.Message(what), routing_key=self.queue)

        async def is_received() -> bool:
            return what in self.received

        await eventually(is_received)


@pytest.fixture
async def subscription(rabbitmq, prefix) -> AsyncIterator[Subscription]:
    robust, other = await aio_pika.connect_robust(rabbitmq.url), await aio_pika.connect(rabbitmq.url)
    async with robust, other:
        channel, received, queue = await robust.channel(), [], f"{prefix}.subscription"
        consumer = QueueConsumer(channel, queue, partial(_take, received))
        subscription = Subscription(consumer, channel, await other.channel(), queue, received)
        yield subscription
        await subscription.other.queue_delete(queue)


async def test_a_consumer_resumes_on_a_reopened_channel(subscription):
    await subscription.declare()
    await subscription.consumer.consume()
    await subscription.receives(b"before")

    await subscription.reopen()

    await subscription.receives(b"after")
    assert not subscription.consumer.ended.is_set()


async def test_a_consumer_reports_its_end_and_resumes(subscription):
    await subscription.declare()
    await subscription.consumer.consume()

    await subscription.other.queue_delete(subscription.queue)
    async with asyncio.timeout(5):
        await subscription.consumer.ended.wait()
    await subscription.declare()
    await subscription.consumer.consume()
    await subscription.receives(b"after")

    assert await subscription.declare() == 1


async def test_a_consumer_begins_once_and_ends_when_cancelled(subscription):
    await subscription.declare()
    await subscription.consumer.consume()
    await subscription.consumer.consume()

    assert await subscription.declare() == 1
    await subscription.consumer.cancel()
    await subscription.reopen()
    assert await subscription.declare() == 0


async def test_a_missing_queue_is_consumed_once_declared(subscription):
    with pytest.raises(ChannelNotFoundEntity):
        await subscription.consumer.consume()

    await subscription.declare()
    await eventually(partial(_consumes, subscription.consumer))
    await subscription.receives(b"there")

    assert await subscription.declare() == 1


async def test_a_queue_missing_twice_is_consumed_once_declared(subscription):
    with pytest.raises(ChannelNotFoundEntity):
        await subscription.consumer.consume()
    async with asyncio.timeout(5):  # the reopened channel misses the queue, too
        await subscription.consumer.ended.wait()

    await subscription.declare()
    await eventually(partial(_consumes, subscription.consumer))
    await subscription.receives(b"there")

    assert await subscription.declare() == 1


async def _consumes(consumer: QueueConsumer) -> bool:
    with suppress(*AWAY):  # until the channel that the broker closed is reopened
        await consumer.consume()
        return True
    return False


def _take(received: list[bytes], deliveries: Sequence[ReceivedDelivery]) -> None:
    received += [each.body for each in deliveries]
