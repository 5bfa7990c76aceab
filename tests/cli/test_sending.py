"""What is sent while nobody listens yet waits as long as it may; what the broker refuses is said in one line."""

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
    return [abort_request("order", f"order-{n}", "nobody home", now=SystemClock().now()) for n in range(count)]


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
    """Has each message at once, refuses one, and confirms none before it is let."""

    def __init__(self) -> None:
        self.has: list[str | None] = []
        self.confirms = asyncio.Event()

    async def publish(self, message: WireMessage) -> None:
        self.has.append(message.correlation_id)
        if message.correlation_id == "order-7":
            raise UnroutableError("no queue is bound")
        await self.confirms.wait()

    async def has_a_burst(self) -> bool:
        return len(self.has) == 100


async def test_an_interrupt_waits_for_what_is_under_way():
    broker, told = SlowBroker(), []
    sending = asyncio.create_task(send_all(messages(250)[8:], broker, sent=told.append))
    await eventually(broker.has_a_burst)

    sending.cancel()
    broker.confirms.set()
    with pytest.raises(asyncio.CancelledError):
        await sending

    assert len(told) == 100
    assert told == broker.has


async def test_a_failure_waits_for_what_is_under_way():
    broker, told = SlowBroker(), []
    sending = asyncio.create_task(send_all(messages(250), broker, sent=told.append))
    await eventually(broker.has_a_burst)

    broker.confirms.set()
    with pytest.raises(UnroutableError):
        await sending

    assert {*told} == {*broker.has} - {"order-7"}


@pytest.mark.parametrize("arguments", [(), ("--count", "250")])
def test_message_refused_by_the_broker_ends_with_3(saga_process, rabbitmq, arguments):
    # No login may declare what begins with amq., so this is refused to all of them.
    result = saga_process(
        "trigger", "OrderCreated", *arguments, SAGA_BROKER_URL=rabbitmq.url, SAGA_EXCHANGE="amq.reserved"
    )

    assert result.returncode == 3
    assert result.stderr.startswith("error: the broker refuses us at SAGA_BROKER_URL: ChannelAccessRefused")
    assert len(result.stderr.splitlines()) == 1


def test_wrong_broker_password_ends_with_3(saga_process, rabbitmq):
    wrong = rabbitmq.url.replace("guest:guest@", "guest:wrong@")

    result = saga_process("trigger", "OrderCreated", SAGA_BROKER_URL=wrong)

    assert result.returncode == 3
    assert result.stderr.startswith("error: the broker refuses us at SAGA_BROKER_URL")
    assert len(result.stderr.splitlines()) == 1
