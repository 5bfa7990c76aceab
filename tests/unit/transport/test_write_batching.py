"""The frames that come while the socket takes another are one write."""

from __future__ import annotations

import asyncio

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic

from tests.end_to_end.proxy import Proxy, Way
from toolkit.transport.rabbitmq.write_batching import join_writes


async def test_messages_published_together_are_two_writes(recorded):
    channel = join_writes(await recorded.channel.get_underlay_channel())
    recorded.writes.clear()

    publishing = [
        channel.basic_publish(f"{number}".encode(), routing_key=recorded.queue.name, wait=False)
        for number in range(100)
    ]
    confirms = await asyncio.gather(*publishing)

    assert len(recorded.writes) == 2  # the first one at once, and the others together
    assert all(isinstance(confirm, Basic.Ack) for confirm in confirms)
    assert await recorded.unacknowledged() == [f"{number}".encode() for number in range(100)]


async def test_a_channel_with_joined_writes_reports_its_closing(recorded):
    channel = join_writes(await recorded.channel.get_underlay_channel())

    publishing = [channel.basic_publish(b"", exchange="there is none", routing_key="x", wait=False) for _ in range(3)]
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*publishing, return_exceptions=True)

    assert [type(each) for each in ended] == [ChannelNotFoundEntity] * 3
    assert channel.is_closed
    assert await recorded.unacknowledged() == []


async def test_a_silent_broker_does_not_fill_the_memory(rabbitmq, prefix):
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
        async with asyncio.timeout(10):  # what was taken is sent, and the channel still works
            await channel.basic_publish(b"", routing_key="nobody", wait=False)
        await connection.close()

    assert taken < 5_000


async def test_frames_are_written_in_their_order(recorded):
    channel = join_writes(await recorded.channel.get_underlay_channel())

    publishing = [
        asyncio.create_task(channel.basic_publish(b"", routing_key=recorded.queue.name, wait=wait))
        for wait in (False, True, False)
    ]
    declared = await channel.queue_declare(recorded.queue.name, passive=True)
    await asyncio.gather(*publishing)

    assert declared.queue == recorded.queue.name
    assert len(await recorded.unacknowledged()) == 3


async def test_joining_a_channels_writes_twice_changes_nothing(recorded):
    channel = await recorded.channel.get_underlay_channel()

    once = join_writes(channel).write_queue

    assert join_writes(channel).write_queue is once
