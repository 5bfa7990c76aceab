"""Queues, exchanges and bindings that a service finds on the broker at its start."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from sqlmodel.ext.asyncio.session import AsyncSession
from structlog.testing import capture_logs

from tests.eventually import eventually
from tests.servers import Server
from toolkit import Event, Participant, Refusal, Saga, SagaId, Service, Settings
from toolkit.app import App
from toolkit.errors import BrokerRefusesError, UnroutableError
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import dead_letter_queries, saga_log_queries
from toolkit.protocol.dead_letter_rows import WholeDeadLetter
from toolkit.transport.rabbitmq.publisher import RabbitPublisher
from toolkit.transport.rabbitmq.topology import declared_queues


class BreadOrdered(Event, owner="customer"):
    order_id: SagaId


class BreadWrapped(Event, owner="shop"):
    order_id: SagaId


class BreadSold(Event, owner="bakery", optional=True):
    order_id: SagaId


class BreadMissed(Refusal, owner="bakery", optional=True):
    order_id: SagaId


saga = Saga(
    name="bread", id_field="order_id", starts_with=BreadOrdered, completes_with=BreadSold, fails_with=BreadMissed
)


def release(*, wraps: bool) -> Service:
    """Return the bakery as a release has it, one that takes wrapped bread or one that does not."""
    participant = Participant("bakery", saga=saga)

    @participant.step()
    async def sell_bread(event: BreadOrdered, session: AsyncSession) -> BreadSold:
        return BreadSold(order_id=event.order_id)

    if wraps:

        @participant.step()
        async def sell_wrapped(event: BreadWrapped, session: AsyncSession) -> BreadSold:
            return BreadSold(order_id=event.order_id)

    return Service(name="bakery", participants=[participant])


@pytest.fixture
def settings(rabbitmq: Server, prefix: str, tmp_path: Path) -> Settings:
    return Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)


@pytest.fixture
async def channel(settings: Settings) -> AsyncIterator[AbstractChannel]:
    """A channel to the broker; what the test made is deleted at its end."""
    connection = await aio_pika.connect(settings.broker_url)
    async with connection:
        async with connection.channel() as channel:
            yield channel
        async with connection.channel() as channel:
            for name in (f"{settings.exchange}.bakery", f"{settings.exchange}.bakery.dead"):
                await channel.queue_delete(name)
            for name in (settings.exchange, f"{settings.exchange}.dead", f"{settings.exchange}.bakery"):
                await channel.exchange_delete(name)


def wrapped(order_id: str) -> WireMessage:
    return WireMessage(json.dumps({"order_id": order_id}).encode(), "shop.BreadWrapped", correlation_id=order_id)


async def test_events_that_no_release_consumes_are_unbound(settings: Settings, channel: AbstractChannel) -> None:
    former = App(release(wraps=True), settings)
    await former.start()
    await former.stop()
    async with RabbitPublisher(settings) as client:
        await client.publish(wrapped("order-1"))
        app = App(release(wraps=False), settings)
        await app.start()

        with pytest.raises(UnroutableError):
            await client.publish(wrapped("order-2"))

    (dead_letter,) = await eventually(lambda: dead_letters_of(app))
    await app.stop()
    assert (dead_letter.reason, dead_letter.saga_id) == ("no longer consumed", "order-1")
    assert "a former release of this service" in dead_letter.error


async def test_two_releases_keep_each_others_bindings(settings: Settings, channel: AbstractChannel) -> None:
    old, new = App(release(wraps=True), settings), App(release(wraps=False), settings)
    await old.start()
    await new.start()
    async with RabbitPublisher(settings) as client:
        await client.publish(wrapped("order-1"))  # it would return if the new release had unbound it
        await new.stop()
        await client.publish(wrapped("order-2"))

    await eventually(lambda: steps_of(old, "order-2"), what="the step of the old release")
    assert await steps_of(old, "order-2") == ["sell_wrapped"]
    await old.stop()


async def steps_of(app: App, order_id: str) -> list[str]:
    async with app.runtime.database.reading() as connection:
        entries = await saga_log_queries.entries(connection, saga_id=order_id)
    return [each.step for each in entries if each.to_state == "completed"]


async def dead_letters_of(app: App) -> list[WholeDeadLetter]:
    async with app.runtime.database.reading() as connection:
        return await dead_letter_queries.listed(connection)


# -- queues and exchanges of others ------------------------------------------------------------------------------


async def as_a_classic_queue(channel: AbstractChannel, name: str) -> None:
    await channel.declare_queue(f"{name}.bakery", durable=True)


async def as_a_stream(channel: AbstractChannel, name: str) -> None:
    await channel.declare_queue(f"{name}.bakery", durable=True, arguments={"x-queue-type": "stream"})


async def as_a_queue_with_a_limit(channel: AbstractChannel, name: str) -> None:
    queue, _ = declared_queues(Settings(exchange=name), "bakery")
    arguments = dict(queue.arguments or {}) | {"x-delivery-limit": 20}
    await channel.declare_queue(queue.name, durable=True, arguments=arguments)


async def as_a_queue_of_another_connection(channel: AbstractChannel, name: str) -> None:
    await channel.declare_queue(f"{name}.bakery", exclusive=True)


async def as_a_classic_dead_letter_queue(channel: AbstractChannel, name: str) -> None:
    await channel.declare_queue(f"{name}.bakery.dead", durable=True)


async def as_a_direct_exchange(channel: AbstractChannel, name: str) -> None:
    await channel.declare_exchange(name, "direct", durable=True)


async def as_a_fanout_exchange_of_dead_letters(channel: AbstractChannel, name: str) -> None:
    await channel.declare_exchange(f"{name}.dead", "fanout", durable=True)


@pytest.mark.parametrize(
    ("is_there", "cure"),
    [
        (as_a_classic_queue, "queue {}.bakery has other arguments: .*rabbitmqctl delete_queue -p / {}.bakery"),
        (as_a_stream, "queue {}.bakery has other arguments"),
        (as_a_queue_with_a_limit, "queue {}.bakery has other arguments"),
        (as_a_queue_of_another_connection, "queue {}.bakery is exclusive to another connection"),
        (as_a_classic_dead_letter_queue, "queue {}.bakery.dead has other arguments"),
        (as_a_direct_exchange, "exchange {} has another type: name another SAGA_EXCHANGE"),
        (as_a_fanout_exchange_of_dead_letters, "exchange {}.dead has another type"),
    ],
)
async def test_a_foreign_queue_or_exchange_ends_the_start(
    settings: Settings, channel: AbstractChannel, is_there: Any, cure: str
) -> None:
    await is_there(channel, settings.exchange)
    app = App(release(wraps=True), settings)

    with pytest.raises(BrokerRefusesError, match=cure.replace("{}", settings.exchange)):
        await app.start()

    await app.stop()


async def test_a_former_releases_dead_letter_exchange_is_accepted(settings: Settings, channel: AbstractChannel) -> None:
    await channel.declare_exchange(f"{settings.exchange}.dead", "direct", durable=True)
    app = App(release(wraps=True), settings)

    with capture_logs() as logs:
        await app.start()

    await app.stop()
    (line,) = [each for each in logs if each["event"] == "the dead-letter exchange is that of a former release"]
    assert f"delete exchange name={settings.exchange}.dead" in line["cure"]


async def test_a_replaced_queue_makes_the_service_unready(settings: Settings, channel: AbstractChannel) -> None:
    app = App(release(wraps=True), settings.model_copy(update={"redeclare_every": settings.redeclare_every / 20}))
    await app.start()

    await channel.queue_delete(f"{settings.exchange}.bakery.dead")
    await channel.declare_queue(f"{settings.exchange}.bakery.dead", durable=True)

    async def is_not_ready() -> bool:
        return not (await app.readiness())["broker"]

    await eventually(is_not_ready, what="the service to be not ready")
    await channel.queue_delete(f"{settings.exchange}.bakery.dead")

    async def is_ready() -> bool:
        return (await app.readiness())["broker"]

    await eventually(is_ready, what="the service to be ready again")
    await app.stop()
