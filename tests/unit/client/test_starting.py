"""Starting events wait for a consumer as long as the caller allows; an interrupt loses no confirm."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import aio_pika
import pytest

from tests.eventually import eventually
from toolkit import Settings
from toolkit.client.starting import send_all
from toolkit.clock import SystemClock
from toolkit.errors import UnroutableError
from toolkit.messaging.envelope import WireMessage, abort_request
from toolkit.transport.rabbitmq.publisher import RabbitPublisher


def messages(count: int) -> list:
    return [abort_request("order", f"order-{n}", "no consumer", now=SystemClock().now()) for n in range(count)]


async def test_queue_bound_meanwhile_gets_all_messages(rabbitmq, prefix):
    async with RabbitPublisher(Settings(broker_url=rabbitmq.url, exchange=prefix)) as publisher:
        sending = asyncio.create_task(send_all(messages(5), publisher, patience=timedelta(seconds=60)))
        connection = await aio_pika.connect(rabbitmq.url)
        async with connection, connection.channel() as channel:
            queue = await channel.declare_queue(prefix, exclusive=True)
            await queue.bind(prefix, routing_key="saga.#")

            await sending

            assert (await channel.declare_queue(prefix, passive=True)).declaration_result.message_count == 5
            await channel.exchange_delete(prefix)


async def test_unconsumed_event_fails_at_once_without_patience(rabbitmq, prefix):
    async with RabbitPublisher(Settings(broker_url=rabbitmq.url, exchange=prefix)) as publisher:
        with pytest.raises(UnroutableError, match=r"no queue is bound to saga\.AbortRequested"):
            await send_all(messages(3), publisher)


class SlowBroker:
    """A publisher that receives messages at once, refuses one, and confirms the others when a test allows it."""

    def __init__(self) -> None:
        self.received: list[str | None] = []
        self.confirms = asyncio.Event()

    async def publish(self, message: WireMessage) -> None:
        self.received.append(message.correlation_id)
        if message.correlation_id == "order-7":
            raise UnroutableError("no queue is bound")
        await self.confirms.wait()

    async def has_a_burst(self) -> bool:
        return len(self.received) == 100


async def test_an_interrupt_waits_for_messages_under_way():
    broker, reported = SlowBroker(), []
    sending = asyncio.create_task(send_all(messages(250)[8:], broker, sent=reported.append))
    await eventually(broker.has_a_burst)

    sending.cancel()
    broker.confirms.set()
    with pytest.raises(asyncio.CancelledError):
        await sending

    assert len(reported) == 100
    assert reported == broker.received


async def test_a_failure_waits_for_messages_under_way():
    broker, reported = SlowBroker(), []
    sending = asyncio.create_task(send_all(messages(250), broker, sent=reported.append))
    await eventually(broker.has_a_burst)

    broker.confirms.set()
    with pytest.raises(UnroutableError):
        await sending

    assert {*reported} == {*broker.received} - {"order-7"}
