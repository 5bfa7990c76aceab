"""The sender that a real broker verified, and what a service accepts from it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.eventually import eventually
from tests.servers import Server
from toolkit import Event, Participant, Refusal, RetryPolicy, Saga, SagaId, Service, Settings
from toolkit.app import App
from toolkit.clock import SystemClock
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.operations import dead_letters as dead_letter_operations
from toolkit.persistence import dead_letter_queries
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import Selection
from toolkit.persistence.outbox import OutboxRow, add
from toolkit.persistence.saga_log import Entry
from toolkit.persistence.saga_log_queries import timeline
from toolkit.protocol.dead_letter_rows import WholeDeadLetter
from toolkit.runtime.delivery import Delivery
from toolkit.transport.rabbitmq.publisher import RabbitPublisher


class TeaOrdered(Event, owner="guest"):
    order_id: SagaId


class TeaBrewed(Event, owner="kitchen", optional=True):
    order_id: SagaId


class TeaMissed(Refusal, owner="kitchen", optional=True):
    order_id: SagaId


saga = Saga(name="tea", id_field="order_id", starts_with=TeaOrdered, completes_with=TeaBrewed, fails_with=TeaMissed)
BY = Operator("ada@desk", "it is to be tried again")


def kitchen(failures: int = 0) -> Service:
    """Return the kitchen, whose step fails `failures` times first."""
    participant = Participant("kitchen", saga=saga)
    left = [failures]

    @participant.step(retry=RetryPolicy(attempts=9))
    async def brew(event: TeaOrdered, session: AsyncSession) -> TeaBrewed:
        if left[0]:
            left[0] -= 1
            raise ConnectionError("the kettle is cold")
        return TeaBrewed(order_id=event.order_id)

    return Service(name="kitchen", participants=[participant])


@pytest.fixture
def settings(rabbitmq: Server, prefix: str, tmp_path: Path) -> Settings:
    return Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path, logins={"guest": ["guest"]})


@pytest.fixture
async def channel(settings: Settings) -> AsyncIterator[AbstractChannel]:
    """A channel to the broker; what the test made is deleted at its end."""
    async with await aio_pika.connect(settings.broker_url) as connection, connection.channel() as channel:
        yield channel
        for name in (
            f"{settings.exchange}.kitchen",
            f"{settings.exchange}.kitchen.dead",
            f"{settings.exchange}.observer",
        ):
            await channel.queue_delete(name)
        for name in ("", ".dead", ".kitchen", ".detour"):
            await channel.exchange_delete(f"{settings.exchange}{name}")


def ordered(order_id: str, **facts: Any) -> WireMessage:
    return WireMessage(json.dumps({"order_id": order_id}).encode(), "guest.TeaOrdered", message_id=new_id(), **facts)


async def publish(channel: AbstractChannel, exchange: str, key: str, **properties: Any) -> None:
    message = aio_pika.Message(b'{"order_id": "tea-1"}', correlation_id="tea-1", **properties)
    await (await channel.get_exchange(exchange, ensure=False)).publish(message, key)


async def dead_letters_of(app: App, count: int = 1) -> list[WholeDeadLetter]:
    async def are_there() -> list[WholeDeadLetter]:
        async with app.runtime.database.reading() as connection:
            found = await dead_letter_queries.listed(connection)
        return found if len(found) == count and all(each.attempts for each in found) else []

    return await eventually(are_there, what=f"{count} dead letters")


async def completed(app: App, order_id: str) -> list[Entry]:
    async def is_done() -> list[Entry]:
        async with app.runtime.database.reading() as connection:
            entries = await timeline(connection, order_id)
        return entries if any(each.to_state == "completed" for each in entries) else []

    return await eventually(is_done, what=f"{order_id} to be completed")


async def test_each_message_carries_its_senders_user_id(settings: Settings, channel: AbstractChannel) -> None:
    app = App(kitchen(), settings)
    await app.start()
    received = await channel.declare_queue(f"{settings.exchange}.observer", durable=True)
    for key in ("kitchen.TeaBrewed", "saga.SagaEnded"):
        await received.bind(settings.exchange, routing_key=key)

    async with RabbitPublisher(settings) as client:
        await client.publish(ordered("tea-1"))
    await completed(app, "tea-1")
    messages = [await eventually(lambda: received.get(fail=False), what="a message") for _ in range(2)]

    await app.stop()
    assert {(each.routing_key, each.user_id) for each in messages} == {
        ("kitchen.TeaBrewed", "guest"), ("saga.SagaEnded", "guest"),
    }  # fmt: skip


async def test_a_retry_keeps_its_routing_key_and_login(settings: Settings, channel: AbstractChannel) -> None:
    app = App(kitchen(failures=1), settings)
    taken: list[WireMessage] = []
    await app.start()
    accept = app.runtime.accept

    def record(deliveries: Sequence[Delivery]) -> None:
        taken.extend(each.wire for each in deliveries)
        accept(deliveries)

    app.runtime.accept = record  # type: ignore[method-assign]

    async with RabbitPublisher(settings) as client:
        await client.publish(ordered("tea-1"))
    await completed(app, "tea-1")

    await app.stop()
    first, retry = (each for each in taken if each.routing_key == "guest.TeaOrdered")
    assert (first.exchange, retry.exchange) == (settings.exchange, f"{settings.exchange}.kitchen")
    assert first.headers["sent-by"] == retry.headers["sent-by"] == "guest"


async def test_redriving_does_not_bypass_the_senders_check(settings: Settings, channel: AbstractChannel) -> None:
    app = App(kitchen(), settings)
    await app.start()

    await publish(channel, settings.exchange, "guest.TeaOrdered")
    (dead_letter,) = await dead_letters_of(app)
    facts: Any = {"queue": app.runtime.queue, "now": SystemClock().now()}
    await dead_letter_operations.redrive(app.runtime.database, Selection(saga_id="tea-1"), BY, **facts)
    (again,) = await dead_letters_of(app)

    await app.stop()
    assert dead_letter.reason == again.reason == "wrong sender"
    assert again.id != dead_letter.id
    assert again.headers["sent-by"] == ""


async def test_a_forged_login_header_is_rejected(settings: Settings, channel: AbstractChannel) -> None:
    app = App(kitchen(), settings)
    await app.start()

    await publish(channel, settings.exchange, "guest.TeaOrdered", headers={"sent-by": "guest"})
    (dead_letter,) = await dead_letters_of(app)

    await app.stop()
    assert dead_letter.reason == "wrong sender"


async def test_a_wrong_routing_key_makes_a_dead_letter(settings: Settings, channel: AbstractChannel) -> None:
    app = App(kitchen(), settings)
    await app.start()

    await publish(channel, settings.exchange, "saga.AbortRequested", type="TeaOrdered", user_id="guest")
    (dead_letter,) = await dead_letters_of(app)

    await app.stop()
    assert (dead_letter.reason, dead_letter.saga_id) == ("wrong routing key", "tea-1")


async def test_a_forwarded_message_is_dead_lettered(settings: Settings, channel: AbstractChannel) -> None:
    """A login with the right to a few keys may bind an exchange of its own in front of the event exchange."""
    app = App(kitchen(), settings)
    await app.start()
    detour = await channel.declare_exchange(f"{settings.exchange}.detour", "fanout")
    await (await channel.get_exchange(settings.exchange)).bind(detour)

    await publish(channel, detour.name, "guest.TeaOrdered", user_id="guest")
    (dead_letter,) = await dead_letters_of(app)

    await app.stop()
    assert dead_letter.reason == "forwarded"


async def test_retries_of_a_former_release_still_run(settings: Settings, channel: AbstractChannel) -> None:
    settings = settings.model_copy(update={"logins": {}})
    app = App(kitchen(), settings)
    await app.start()
    await app.stop()
    queue = f"{settings.exchange}.kitchen"

    # As it wrote them: by the queue's name, through the default exchange, without a login.
    old = aio_pika.Message(b'{"order_id": "tea-1"}', type="TeaOrdered", message_id=new_id())
    await channel.default_exchange.publish(old, queue)
    app = App(kitchen(), settings)
    async with app.runtime.database.transaction() as session:
        row = ordered("tea-2", type="TeaOrdered", correlation_id="tea-2", timestamp=SystemClock().now())
        await add(
            await session.connection(), [OutboxRow(id=new_id(), message=row, due_at=row.timestamp, destination=queue)]
        )
    await app.start()

    await asyncio.gather(completed(app, "tea-1"), completed(app, "tea-2"))
    await app.stop()
