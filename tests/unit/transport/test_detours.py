"""A message whose key the broker has not checked stays refused, however often it is redriven."""

from __future__ import annotations

from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from tests.eventually import eventually
from tests.unit.transport import test_rabbitmq_senders as senders
from tests.unit.transport.test_rabbitmq_senders import BY, completed, dead_letters_of, kitchen, publish
from toolkit import Settings
from toolkit.app import App
from toolkit.clock import SystemClock
from toolkit.operations import dead_letters as dead_letter_operations
from toolkit.persistence.dead_letters import Selection
from toolkit.persistence.saga_log_queries import timeline

settings, channel = senders.settings, senders.channel


async def through_an_exchange(settings: Settings, channel: AbstractChannel) -> None:
    """Publish through an exchange that is bound before the shared one."""
    detour = await channel.declare_exchange(f"{settings.exchange}.detour", "fanout")
    await (await channel.get_exchange(settings.exchange)).bind(detour)
    await publish(channel, detour.name, "guest.TeaOrdered", user_id="guest", headers={"came-by": ""})


async def through_a_queue(settings: Settings, channel: AbstractChannel, exchange: str = "", key: str = "") -> None:
    """Publish to a queue that gives messages up at once, under a key of its owner's choice."""
    passes_on = {
        "x-message-ttl": 1,
        "x-dead-letter-exchange": exchange or settings.exchange,
        "x-dead-letter-routing-key": key or "guest.TeaOrdered",
    }
    queue = await channel.declare_queue(f"{settings.exchange}.ear", durable=True, arguments=passes_on)
    message = aio_pika.Message(b'{"order_id": "tea-1"}', correlation_id="tea-1", type="TeaOrdered", user_id="guest")
    await channel.default_exchange.publish(message, queue.name)


async def through_a_queue_to_the_dead(settings: Settings, channel: AbstractChannel) -> None:
    """Have a foreign queue give a message up to the queue of dead letters."""
    await through_a_queue(settings, channel, f"{settings.exchange}.dead", f"{settings.exchange}.kitchen")


async def through_an_exchange_to_the_dead(settings: Settings, channel: AbstractChannel) -> None:
    """Publish to the queue of dead letters, with what the broker writes on a message of the service's own queue."""
    own = f"{settings.exchange}.kitchen"
    detour = await channel.declare_exchange(f"{settings.exchange}.detour", "fanout")
    await (await channel.get_exchange(f"{settings.exchange}.dead")).bind(detour)
    death = {"queue": own, "exchange": own, "reason": "expired", "count": 1, "routing-keys": ["guest.TeaOrdered"]}
    headers: Any = {"x-death": [death], "sent-by": "guest"}
    await publish(channel, detour.name, own, type="TeaOrdered", user_id="guest", headers=headers)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (through_an_exchange, "forwarded"),
        (through_a_queue, "forwarded"),
        (through_a_queue_to_the_dead, "expired"),
        (through_an_exchange_to_the_dead, "expired"),
    ],
)
async def test_a_redrive_forgives_no_detour(
    settings: Settings, channel: AbstractChannel, sent: Any, reason: str
) -> None:
    app = App(kitchen(), settings)
    await app.start()
    facts: Any = {"queue": app.runtime.queue, "now": SystemClock().now()}

    await sent(settings, channel)
    found = await dead_letters_of(app)
    for _ in range(2):
        await dead_letter_operations.redrive(app.runtime.database, Selection(saga_id="tea-1"), BY, **facts)
        found += await dead_letters_of(app)

    async with app.runtime.database.reading() as connection:
        entries = await timeline(connection, "tea-1")
    await app.stop()
    assert [each.reason for each in found] == [reason, "forwarded", "forwarded"]
    assert len({each.id for each in found}) == 3
    assert entries == []


async def test_a_message_of_its_own_queue_is_redriven(settings: Settings, channel: AbstractChannel) -> None:
    app = App(kitchen(), settings)
    await app.start()
    await app.stop()
    await publish(channel, settings.exchange, "guest.TeaOrdered", type="TeaOrdered", user_id="guest", expiration=0.001)
    dead = await channel.get_queue(f"{settings.exchange}.kitchen.dead")
    await eventually(lambda: message_count(channel, dead.name), what="a message that the queue gave up")

    app = App(kitchen(), settings)
    await app.start()
    (dead_letter,) = await dead_letters_of(app)
    facts: Any = {"queue": app.runtime.queue, "now": SystemClock().now()}
    await dead_letter_operations.redrive(app.runtime.database, Selection(saga_id="tea-1"), BY, **facts)
    await completed(app, "tea-1")

    await app.stop()
    assert dead_letter.reason == "expired"


async def message_count(channel: AbstractChannel, queue: str) -> int:
    return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0
