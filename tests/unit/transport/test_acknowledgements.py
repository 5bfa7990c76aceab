"""Deliveries that were committed together are acknowledged by one frame."""

from __future__ import annotations

import asyncio

from aio_pika.exceptions import ChannelInvalidStateError
from aiormq.abc import ChannelFrame
from pamqp import frame
from pamqp.commands import Basic

from toolkit.transport.rabbitmq.acknowledgements import Acks


async def test_one_frame_acknowledges_deliveries_of_one_turn(recorded):
    acks = Acks()
    await recorded.fill(5)

    acks.acknowledge(recorded.delivered[:2])
    acks.acknowledge(recorded.delivered[2:])
    await acks.finish()

    assert recorded.acknowledged() == [(5, True)]
    assert await recorded.unacknowledged() == []


async def test_an_early_acknowledgement_leaves_older_deliveries_unacknowledged(recorded):
    acks = Acks()
    await recorded.fill(5)

    acks.acknowledge([recorded.delivered[number] for number in (1, 2, 4, 0)])
    await acks.finish()

    assert recorded.acknowledged() == [(3, True), (5, False)]
    assert await recorded.unacknowledged() == [b"3"]


async def test_no_delivery_is_acknowledged_twice(recorded):
    acks = Acks()
    await recorded.fill(6)

    for turn in ((1, 2, 5), (0, 3), (4,)):
        acks.acknowledge([recorded.delivered[number] for number in turn])
        await acks.finish()

    assert recorded.acknowledged() == [(2, False), (3, False), (6, False), (4, True), (5, True)]
    assert not recorded.channel.is_closed  # the broker closes it where a number is not known any more
    assert await recorded.unacknowledged() == []


async def test_later_acknowledgements_exclude_a_rejected_delivery(recorded):
    acks = Acks()
    await recorded.fill(3)

    await acks.give_back(recorded.delivered[0])
    await recorded.delivers(4)
    acks.acknowledge(recorded.delivered[1:3])
    await acks.finish()

    assert recorded.acknowledged() == [(3, True)]
    assert recorded.delivered[3].frame.redelivered
    assert await recorded.unacknowledged() == [b"0"]


async def test_a_late_reject_leaves_the_next_channel_alone(recorded):
    acks, held, may_fail = Acks(), asyncio.Event(), asyncio.Event()
    await recorded.fill(3)
    first = await recorded.channel.get_underlay_channel()
    put = first.connection.write_queue.put

    async def hold(written: ChannelFrame) -> None:
        if isinstance(frame.unmarshal(written.payload)[2], Basic.Reject):
            held.set()
            await may_fail.wait()
            raise ChannelInvalidStateError("closed meanwhile")
        await put(written)

    first.connection.write_queue.put = hold
    giving_back = asyncio.create_task(acks.give_back(recorded.delivered[0]))
    await held.wait()
    await recorded.channel.close()
    await recorded.channel.reopen()
    second = await recorded.channel.get_underlay_channel()
    await recorded.consume()
    await recorded.delivers(6)
    acks.acknowledge([recorded.delivered[4]])
    await acks.finish()
    may_fail.set()
    await giving_back
    acks.acknowledge([recorded.delivered[5]])
    await acks.finish()

    assert second is not first
    assert await recorded.unacknowledged() == [recorded.delivered[3].body]


async def test_deliveries_of_a_closed_channel_are_redelivered(recorded):
    acks = Acks()
    await recorded.fill(2)
    acks.acknowledge([recorded.delivered[0]])
    await acks.finish()

    await recorded.channel.close()
    acks.acknowledge([recorded.delivered[1]])
    await acks.finish()

    assert await recorded.unacknowledged() == [b"1"]
