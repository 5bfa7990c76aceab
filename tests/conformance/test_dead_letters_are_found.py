"""A dead letter is found by its saga's id, whatever way it took."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue, HeadersType

from tests.conformance.world import RabbitWorld
from tests.eventually import eventually
from toolkit.client.database_client import DatabaseClient
from toolkit.clock import SystemClock
from toolkit.configuration.settings import queue_name
from toolkit.declaration.contract import Contract
from toolkit.operations import dead_letters
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import Selection
from toolkit.transport.rabbitmq.topology import dead_letter_exchange

pytestmark = pytest.mark.parametrize("world", ["rabbit-sqlite", "rabbit-postgresql"], indirect=True)

Send = Callable[[str], Awaitable[None]]


async def expires(channel: AbstractChannel, queue: AbstractQueue, send: Send, world: RabbitWorld) -> None:
    """Let messages expire in the queue."""
    await send(queue.name)


async def is_rejected(channel: AbstractChannel, queue: AbstractQueue, send: Send, world: RabbitWorld) -> None:
    """Let another consumer of the queue reject messages."""
    await send(queue.name)
    while (message := await queue.get(fail=False)) is not None:
        await message.reject(requeue=False)


async def is_delivered_too_often(
    channel: AbstractChannel, queue: AbstractQueue, send: Send, world: RabbitWorld
) -> None:
    """Let another consumer requeue messages, on a queue with a delivery limit of two, as a policy may set."""
    impatient = await in_front_of(queue, channel, world, {"x-queue-type": "quorum", "x-delivery-limit": 2})

    async def requeue(message: AbstractIncomingMessage) -> None:
        await message.reject(requeue=True)

    await impatient.consume(requeue)
    await send(impatient.name)


async def is_one_too_many(channel: AbstractChannel, queue: AbstractQueue, send: Send, world: RabbitWorld) -> None:
    """Let messages overflow a queue in front of the service's own; a policy on that would affect the whole broker."""
    small = await in_front_of(queue, channel, world, {"x-max-length": 1})
    await send(small.name)
    await channel.default_exchange.publish(aio_pika.Message(b"the last"), small.name)


async def in_front_of(
    queue: AbstractQueue, channel: AbstractChannel, world: RabbitWorld, arguments: dict[str, Any]
) -> AbstractQueue:
    """Return another queue with the dead-letter exchange of the service's queue."""
    return await channel.declare_queue(
        f"{queue.name}.front",
        durable=True,
        arguments={
            "x-dead-letter-exchange": dead_letter_exchange(world.settings).name,
            "x-dead-letter-routing-key": queue.name,
            "x-expires": 10_000,
            **arguments,
        },
    )


CAUSES = {
    "expired": expires,
    "rejected": is_rejected,
    "delivery limit": is_delivered_too_often,
    "maxlen": is_one_too_many,
}


@pytest.mark.parametrize("reason", CAUSES)
async def test_broker_dead_letters_are_found_by_saga(world: RabbitWorld, reason: str) -> None:
    hotel = next(app for app in world.apps if app.service.name == "hotel")
    await hotel.stop()

    await let_the_broker_dead_letter(world, reason, expiration=0.001 if reason == "expired" else None)
    await start_again(world)
    await eventually(lambda: are_kept(world, 3), what="the dead letters")

    dead = [each for trip in ("trip-1", "trip-2", "trip-3") for each in await found(world, trip)]
    assert [each.reason for each in dead] == [reason] * 3


async def test_redriven_broker_dead_letters_complete_their_saga(world: RabbitWorld) -> None:
    hotel = next(app for app in world.apps if app.service.name == "hotel")
    await hotel.stop()
    await let_the_broker_dead_letter(world, "rejected")
    await start_again(world)
    await eventually(lambda: are_kept(world, 3), what="the dead letters")

    runtime, by = world.runtimes["hotel"], Operator("ada@desk", "the queue is there again")
    await dead_letters.redrive(
        runtime.database, Selection(saga_id="trip-1"), by, queue=runtime.queue, now=SystemClock().now()
    )
    await world.quiet()

    assert await world.state("trip-1") == "Completed"
    assert await found(world, "trip-1") == []


async def let_the_broker_dead_letter(world: RabbitWorld, reason: str, *, expiration: float | None = None) -> None:
    """Let the broker dead-letter a foreign client's order, an event without an id, and one that is not JSON."""
    name = queue_name(world.settings, "hotel")
    random = str(uuid.uuid4())

    async def send(to: str) -> None:
        await put(b'{"trip_id": "trip-1"}', to, type="TripRequested", correlation_id=random)
        await put(b'{"trip_id": "trip-2", "seat": "1A"}', to, type="FlightCancelled")
        await put(b"{broken", to, type="FlightCancelled", correlation_id="trip-3")

    async def put(body: bytes, to: str, **properties: str) -> None:
        headers: HeadersType = {"saga-type": "trip"}
        message = aio_pika.Message(
            body, message_id=str(uuid.uuid4()), headers=headers, expiration=expiration, **properties
        )
        await channel.default_exchange.publish(message, to)

    async with await aio_pika.connect(world.settings.broker_url) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(name, passive=True)
        await CAUSES[reason](channel, queue, send, world)
        await eventually(lambda: are_there(world, f"{name}.dead", 3), what="three messages in the dead-letter queue")


async def are_there(world: RabbitWorld, queue: str, count: int) -> bool:
    return await world.depth(queue) >= count


async def are_kept(world: RabbitWorld, count: int) -> bool:
    return len(await world.dead_letters("hotel")) == count


async def start_again(world: RabbitWorld) -> None:
    hotel = await world.app("hotel")
    await hotel.start()
    world.apps = [app if app.service.name != "hotel" else hotel for app in world.apps]
    world.runtimes["hotel"] = hotel.runtime


async def found(world: RabbitWorld, saga_id: str) -> list[dict[str, object]]:
    """Return a saga's dead letters as command line and console get them; its timeline has them, too."""
    service = next(each for each in world.services if each.name == "hotel")
    url = world.runtimes["hotel"].database.engine.url.render_as_string(hide_password=False)
    client = DatabaseClient(
        "hotel", url, queue=queue_name(world.settings, "hotel"), declared=lambda: service,
        contract=lambda: Contract.of(service), clock=SystemClock(),
    )  # fmt: skip
    try:
        found_here = await client.dead_letters(Selection(saga_id=saga_id), limit=10)
        assert [each.id for each in (await client.saga(saga_id)).dead_letters] == [each.id for each in found_here]
        return found_here
    finally:
        await client.close()
