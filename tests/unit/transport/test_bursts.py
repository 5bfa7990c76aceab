"""The messages of a burst are one write, and each has an outcome of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity, PublishError
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp.commands import Basic

from tests.counting import counted_tasks
from tests.end_to_end.proxy import Proxy, Way
from tests.eventually import becomes_true
from toolkit import Settings
from toolkit.errors import UnreachableError, UnroutableError
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.rabbitmq import bursts
from toolkit.transport.rabbitmq.bursts import Burst
from toolkit.transport.rabbitmq.publisher import RabbitPublisher
from toolkit.transport.rabbitmq.write_batching import join_writes


def to(routing_key: str, body: bytes = b"{}", **facts: Any) -> WireMessage:
    return WireMessage(body, routing_key, message_id=new_id(), timestamp=datetime.now(UTC), **facts)


def orders(count: int, body: bytes = b"{}") -> list[tuple[WireMessage, None]]:
    return [(to("order.Placed", body), None) for _ in range(count)]


def burst_of(*messages: WireMessage, exchange: str = "") -> Burst:
    return Burst([(message, exchange) for message in messages], login="guest")


@asynccontextmanager
async def behind_a_proxy(
    rabbitmq, prefix, *, lease: float = 5
) -> AsyncIterator[tuple[Proxy, RabbitPublisher, Channel]]:
    """A publisher whose connection to the broker can be cut, and a queue of all its messages."""
    async with Proxy(rabbitmq.url) as proxy:
        settings = Settings(
            broker_url=proxy.through(rabbitmq.url), exchange=prefix, relay_lease=timedelta(seconds=lease)
        )
        async with RabbitPublisher(settings) as publisher, await aio_pika.connect(rabbitmq.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(prefix, routing_key="order.*")
            yield proxy, publisher, await publisher._open_channel().get_underlay_channel()
            await channel.exchange_delete(prefix)


async def test_a_burst_is_one_write_without_tasks(recorded):
    channel = join_writes(await recorded.channel.get_underlay_channel())
    bodies = [f"{number}".encode() for number in range(200)]
    recorded.writes.clear()

    burst = burst_of(*(to(recorded.queue.name, body) for body in bodies))
    with counted_tasks() as begun:
        await burst.publish(channel)

    assert burst.outcomes == [None] * 200
    assert len(recorded.writes) == 1
    assert begun == []
    assert await recorded.unacknowledged() == bodies


async def test_a_settled_burst_leaves_nothing_behind(recorded):
    channel = await recorded.channel.get_underlay_channel()

    await burst_of(to(recorded.queue.name), to("nobody"), to(recorded.queue.name)).publish(channel)
    await becomes_true(lambda: not channel.confirmations, what="the last confirm")

    assert channel.delivery_tag == 3
    assert channel.message_id_delivery_tag == {}


async def test_an_unroutable_message_is_returned_alone(recorded):
    channel = await recorded.channel.get_underlay_channel()
    burst = burst_of(*(to("nobody" if number == 3 else recorded.queue.name) for number in range(7)))

    await burst.publish(channel)

    assert [type(each) for each in burst.outcomes] == [type(None)] * 3 + [PublishError] + [type(None)] * 3


async def test_a_message_that_amqp_forbids_fails_alone(recorded):
    channel = await recorded.channel.get_underlay_channel()
    queue = recorded.queue.name
    forbidden = [{"type": "x" * 256}, {"headers": {"x": object()}}, {"headers": {"x": "x" * 200_000}}]
    burst = burst_of(to(queue, b"1"), *(to(queue, **facts) for facts in forbidden), to(queue, b"2"))

    await burst.publish(channel)

    assert [type(each) for each in burst.outcomes] == [type(None), TypeError, TypeError, ValueError, type(None)]
    assert await recorded.unacknowledged() == [b"1", b"2"]


async def test_a_burst_of_forbidden_messages_writes_nothing(recorded):
    channel = await recorded.channel.get_underlay_channel()
    burst = burst_of(to(recorded.queue.name, type="x" * 256))

    await burst.publish(channel)

    assert [type(each) for each in burst.outcomes] == [TypeError]
    assert channel.delivery_tag == 0


async def test_a_channel_that_dies_fails_what_is_open(recorded):
    channel = await recorded.channel.get_underlay_channel()
    here, nowhere = to(recorded.queue.name), to("x")
    burst = Burst([(here, ""), (nowhere, "there is none"), (to(recorded.queue.name), "")], login="guest")

    with pytest.raises(ChannelNotFoundEntity) as raised:
        await burst.publish(channel)
    burst.fail(raised.value)

    assert burst.outcomes[1:] == [raised.value] * 2
    assert burst.outcomes[0] in (None, raised.value)


async def test_a_connection_that_the_broker_closes_fails_all(rabbitmq, prefix):
    async with behind_a_proxy(rabbitmq, prefix) as (_, publisher, channel):
        await channel.connection.write_queue.put(ChannelFrame(payload=b"no frame of AMQP", should_close=False))

        outcomes = await publisher.publish_many(orders(5))

        await becomes_true(lambda: channel.is_closed, what="the end of the channel")
    assert [type(each) for each in outcomes] == [UnreachableError] * 5


async def test_a_lost_connection_fails_the_burst(rabbitmq, prefix):
    async with behind_a_proxy(rabbitmq, prefix) as (proxy, publisher, channel):
        proxy.cut(Way.BACK)
        publishing = asyncio.create_task(publisher.publish_many(orders(5)))
        await becomes_true(lambda: len(channel.confirmations) == 5, what="the burst")

        proxy.reset()
        outcomes = await publishing

        assert [type(each) for each in outcomes] == [UnreachableError] * 5
        assert "did not confirm" in str(outcomes[0])
        proxy.heal()


async def test_a_burst_without_confirms_ends_in_time(rabbitmq, prefix):
    async with behind_a_proxy(rabbitmq, prefix, lease=1) as (proxy, publisher, channel):
        proxy.cut(Way.BACK)
        async with asyncio.timeout(5):
            late = await publisher.publish_many(orders(5))
        proxy.heal()
        after = await publisher.publish_many([*orders(1), (to("nobody.Cares"), None)])

    assert [type(each) for each in late] == [UnreachableError] * 5
    assert [type(each) for each in after] == [type(None), UnroutableError]
    assert channel.delivery_tag == 7


async def test_one_confirm_settles_many_messages(rabbitmq, prefix):
    async with behind_a_proxy(rabbitmq, prefix) as (proxy, _, channel):
        proxy.cut(Way.OUT)
        burst = burst_of(*(to("order.Placed") for _ in range(5)))
        publishing = asyncio.create_task(burst.publish(channel))
        await becomes_true(lambda: len(channel.confirmations) == 5, what="the burst")

        await channel._on_confirm_frame(Basic.Ack(delivery_tag=3, multiple=True))
        await asyncio.sleep(0)
        settled = [burst.is_settled(place) for place in range(5)]
        await channel._on_confirm_frame(Basic.Nack(delivery_tag=5, multiple=True))
        await publishing

    assert settled == [True] * 3 + [False] * 2
    assert burst.outcomes[:3] == [None] * 3
    assert all(burst.outcomes[3:])


async def test_bursts_to_a_silent_broker_fill_no_memory(rabbitmq, prefix):
    async with behind_a_proxy(rabbitmq, prefix, lease=1) as (proxy, publisher, channel):
        proxy.cut(Way.OUT)
        for _ in range(4):
            waiting = [orders(100, b"x" * 10_000) for _ in range(20)]
            await asyncio.gather(*(publisher.publish_many(burst) for burst in waiting))
        taken = channel.delivery_tag

        proxy.heal()
        async with asyncio.timeout(20):
            while await publisher.publish_many(orders(1)) != [None]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    assert taken < 2_000


async def test_another_release_of_aiormq_publishes_singly(recorded, monkeypatch):
    monkeypatch.setattr(bursts, "PARTS", (*bursts.PARTS, "a part that it lacks"))
    channel = await recorded.channel.get_underlay_channel()
    burst = burst_of(to(recorded.queue.name, b"1"), to("nobody"), to(recorded.queue.name, b"2"))

    await burst.publish(channel)

    assert [type(each) for each in burst.outcomes] == [type(None), PublishError, type(None)]
    assert await recorded.unacknowledged() == [b"1", b"2"]
