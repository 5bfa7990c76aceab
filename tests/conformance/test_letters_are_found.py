"""Whatever way a message takes into the dead letters, it is found there by its saga's id."""

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
    """Let messages wait in the queue for longer than they may."""
    await send(queue.name)


async def is_rejected(channel: AbstractChannel, queue: AbstractQueue, send: Send, world: RabbitWorld) -> None:
    """Have another consumer of the queue turn messages away."""
    await send(queue.name)
    while (message := await queue.get(fail=False)) is not None:
        await message.reject(requeue=False)


async def is_delivered_too_often(
    channel: AbstractChannel, queue: AbstractQueue, send: Send, world: RabbitWorld
) -> None:
    """Have another consumer give messages back again and again, to a queue that bears it twice, as a policy may say."""
    impatient = await in_front_of(queue, channel, world, {"x-queue-type": "quorum", "x-delivery-limit": 2})

    async def give_back(message: AbstractIncomingMessage) -> None:
        await message.reject(requeue=True)

    await impatient.consume(give_back)
    await send(impatient.name)


async def is_one_too_many(channel: AbstractChannel, queue: AbstractQueue, send: Send, world: RabbitWorld) -> None:
    """Have messages overflow a queue in front of the service's own; a policy on that would touch the whole broker."""
    small = await in_front_of(queue, channel, world, {"x-max-length": 1})
    await send(small.name)
    await channel.default_exchange.publish(aio_pika.Message(b"the last"), small.name)


async def in_front_of(
    queue: AbstractQueue, channel: AbstractChannel, world: RabbitWorld, arguments: dict[str, Any]
) -> AbstractQueue:
    """Return another queue whose dead letters go where those of the service's queue go."""
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


WAYS = {
    "expired": expires,
    "rejected": is_rejected,
    "delivery limit": is_delivered_too_often,
    "maxlen": is_one_too_many,
}


@pytest.mark.parametrize("reason", WAYS)
async def test_what_the_broker_gives_up_is_found_by_its_saga(world: RabbitWorld, reason: str) -> None:
    hotel = next(app for app in world.apps if app.service.name == "hotel")
    await hotel.stop()

    await given_up(world, reason, expiration=0.001 if reason == "expired" else None)
    await start_again(world)
    await eventually(lambda: are_kept(world, 3), what="the letters")

    letters = [each for trip in ("trip-1", "trip-2", "trip-3") for each in await found(world, trip)]
    assert [letter["reason"] for letter in letters] == [reason] * 3


async def test_what_the_broker_gave_up_goes_on_when_it_is_redriven(world: RabbitWorld) -> None:
    hotel = next(app for app in world.apps if app.service.name == "hotel")
    await hotel.stop()
    await given_up(world, "rejected")
    await start_again(world)
    await eventually(lambda: are_kept(world, 3), what="the letters")

    host, by = world.runtimes["hotel"], Operator("ada@desk", "the queue is there again")
    await dead_letters.redrive(
        host.database, Selection(saga_id="trip-1"), by, queue=host.queue, now=SystemClock().now()
    )
    await world.quiet()

    assert await world.state("trip-1") == "Completed"
    assert await found(world, "trip-1") == []


async def given_up(world: RabbitWorld, reason: str, *, expiration: float | None = None) -> None:
    """Have the broker give up an order of a client's own, an event without an id, and one that is no JSON."""
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
        await WAYS[reason](channel, queue, send, world)
        await eventually(lambda: are_there(world, f"{name}.dead", 3), what="three in the broker's dead letters")


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
    """Return what the command line and the console are shown of a saga's letters; the story has them, too."""
    service = next(each for each in world.services if each.name == "hotel")
    url = world.runtimes["hotel"].database.engine.url.render_as_string(hide_password=False)
    client = DatabaseClient(
        "hotel", url, queue=queue_name(world.settings, "hotel"), emitted=service.emitted,
        contract=lambda: Contract.of(service), clock=SystemClock(),
    )  # fmt: skip
    try:
        letters = await client.dead_letters(Selection(saga_id=saga_id), limit=10)
        assert [each["id"] for each in (await client.saga(saga_id)).dead_letters] == [each["id"] for each in letters]
        return letters
    finally:
        await client.close()
