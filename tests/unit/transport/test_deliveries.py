"""Deliveries are held until their commit, acknowledged by batch, and forgotten with their channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from aiormq.abc import ChannelFrame
from pamqp import frame
from pamqp.commands import Basic

from tests.eventually import becomes_true
from tests.servers import Server
from toolkit import Event, Participant, Saga, SagaId, Service, Settings
from toolkit.app import App
from toolkit.configuration.settings import queue_name
from toolkit.errors import DatabaseUnavailableError


class CupOrdered(Event, owner="guest"):
    cup_id: SagaId


class CupFilled(Event, owner="bar", optional=True):
    cup_id: SagaId


saga = Saga(name="cup", id_field="cup_id", starts_with=CupOrdered, completes_with=CupFilled, fails_with=CupFilled)


class Bar:
    """A service whose steps wait until they may end, on the real broker."""

    def __init__(self, settings: Settings) -> None:
        self.filled: list[str] = []
        self.may_end = asyncio.Event()
        self.queue = queue_name(settings, "bar")
        self._settings = settings
        participant = Participant("bar", saga=saga)

        @participant.step()
        async def fill(event: CupOrdered) -> CupFilled:
            self.filled.append(event.cup_id)
            await self.may_end.wait()
            return CupFilled(cup_id=event.cup_id)

        self.app = App(Service(name="bar", participants=[participant]), settings)

    @property
    def in_hand(self) -> int:
        return len(self.app._consumer.deliveries)

    async def order(self, count: int) -> None:
        async with await aio_pika.connect(self._settings.broker_url) as connection, connection.channel() as channel:
            exchange = await channel.get_exchange(self._settings.exchange, ensure=False)
            for number in range(count):
                message = aio_pika.Message(f'{{"cup_id": "cup-{number}"}}'.encode(), message_id=f"cup-{number}")
                await exchange.publish(message, "guest.CupOrdered")

    async def record_acks(self) -> list[Basic.Ack]:
        """Return the list to which each acknowledgement on the connection is appended."""
        channel = await self.app._consumer._queue_consumer._channel.get_underlay_channel()
        queue, written = channel.connection.write_queue, []
        put = queue.put

        async def record(sent: ChannelFrame) -> None:
            method = frame.unmarshal(sent.payload)[2]
            if isinstance(method, Basic.Ack):
                written.append(method)
            await put(sent)

        queue.put = record
        return written

    async def left(self) -> int:
        """Stop the service, and return how many messages the broker still has for it."""
        await self.app.stop()
        async with await aio_pika.connect(self._settings.broker_url) as connection, connection.channel() as channel:
            return (await channel.declare_queue(self.queue, passive=True)).declaration_result.message_count or 0

    async def close(self) -> None:
        """Stop the service, and delete its queues."""
        await self.app.stop()
        async with await aio_pika.connect(self._settings.broker_url) as connection, connection.channel() as channel:
            await channel.queue_delete(self.queue)
            await channel.queue_delete(f"{self.queue}.dead")


@pytest.fixture
async def bar(rabbitmq: Server, prefix: str, tmp_path: Any) -> AsyncIterator[Bar]:
    bar = Bar(Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path))
    await bar.app.start()
    yield bar
    await bar.close()


async def test_a_batch_is_acknowledged_by_one_frame(bar: Bar) -> None:
    acks = await bar.record_acks()
    await bar.order(20)
    await becomes_true(lambda: bar.in_hand == 20, what="all deliveries")
    bar.may_end.set()
    await becomes_true(lambda: bar.in_hand == 0, what="their commit")

    assert all(each.multiple for each in acks)
    assert acks[-1].delivery_tag >= 20
    assert len(acks) <= 5  # one for what had come when the first batch began, one for the rest, and the ends
    assert await bar.left() == 0


async def test_deliveries_of_a_closed_channel_are_forgotten(bar: Bar) -> None:
    await bar.order(3)
    await becomes_true(lambda: bar.in_hand == 3, what="all deliveries")
    first = await bar.app._consumer._queue_consumer._channel.get_underlay_channel()
    held = set(bar.app._consumer.deliveries._in_hand)

    acks = await bar.record_acks()
    await first.basic_ack(1_000)  # of a delivery that was never made: the broker closes the channel
    await becomes_true(lambda: bar.in_hand == 3 and not held & set(bar.app._consumer.deliveries._in_hand), what="again")
    bar.may_end.set()
    await becomes_true(lambda: bar.in_hand == 0, what="their commit")

    assert all(each.is_done for each in held)
    assert sorted(set(bar.filled)) == ["cup-0", "cup-1", "cup-2"]
    # RabbitMQ 4.0 delivers some of a closed channel's messages twice on the next one: what it has left decides nothing.
    await becomes_true(lambda: 3 <= acks[-1].delivery_tag < 1_000, what="their acknowledgement")


async def test_a_failed_delivery_returns_to_the_broker(bar: Bar) -> None:
    await bar.order(1)
    await becomes_true(lambda: bar.in_hand == 1, what="the delivery")
    acks = await bar.record_acks()
    (delivery,) = bar.app._consumer.deliveries._in_hand

    delivery.fail(DatabaseUnavailableError("away"))
    was_in_hand = bar.in_hand
    bar.may_end.set()
    await becomes_true(lambda: bar.in_hand == 1 and not bar.app._consumer.deliveries._in_hand, what="the pause")
    await becomes_true(lambda: bar.in_hand == 0, what="its second delivery")

    assert was_in_hand == 1
    await becomes_true(lambda: acks and acks[-1].delivery_tag >= 2, what="its acknowledgement")
