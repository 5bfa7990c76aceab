"""What the broker dead-letters comes into the service's table, and can be redriven."""

from __future__ import annotations

import aio_pika

from tests.conformance.operators import is_empty, redrive, with_a_broker
from tests.conformance.world import RabbitWorld, message
from tests.eventually import eventually
from tests.example_sagas.travel import TripRequested
from toolkit.messaging.envelope import WireMessage


@with_a_broker
async def test_broker_dead_letters_are_moved_to_the_table(world: RabbitWorld) -> None:
    lost = message(TripRequested(trip_id="trip-1"), "trip-1")

    await put_into(f"{world.runtimes['hotel'].queue}.dead", lost, world)
    await eventually(lambda: world.dead_letters("hotel"))

    (dead_letter,) = await world.dead_letters("hotel")
    assert (dead_letter.reason, dead_letter.saga_id) == ("given up by the broker", "trip-1")
    assert dead_letter.body == lost.body.decode()
    await eventually(lambda: is_empty(world, f"{world.runtimes['hotel'].queue}.dead"))


@with_a_broker
async def test_a_broker_dead_letter_can_be_redriven(world: RabbitWorld) -> None:
    await world.stop()
    await let_the_broker_dead_letter(world, message(TripRequested(trip_id="trip-1"), "trip-1"))

    await world.start()
    await eventually(lambda: world.dead_letters("hotel"))
    (dead_letter,) = await world.dead_letters("hotel")
    await redrive(world, "hotel")
    await eventually(lambda: world.state("trip-1"))

    assert (dead_letter.reason, dead_letter.routing_key) == ("rejected", "agency.TripRequested")
    assert await world.state("trip-1") == "Completed"


async def put_into(queue: str, wire: WireMessage, world: RabbitWorld) -> None:
    """Publish a message to one queue through the default exchange, which takes all rights."""
    async with await aio_pika.connect(world.settings.broker_url) as connection, connection.channel() as channel:
        facts = {"message_id": wire.message_id, "correlation_id": wire.correlation_id, "type": wire.type}
        await channel.default_exchange.publish(aio_pika.Message(wire.body, headers=dict(wire.headers), **facts), queue)


async def let_the_broker_dead_letter(world: RabbitWorld, wire: WireMessage) -> None:
    """Publish a message, take it and reject it, so that the broker dead-letters it."""
    connection = await aio_pika.connect(world.settings.broker_url)
    async with connection, connection.channel() as channel:
        exchange = await channel.get_exchange(world.settings.exchange)
        facts = {"message_id": wire.message_id, "correlation_id": wire.correlation_id, "type": wire.type}
        sent = aio_pika.Message(wire.body, headers=dict(wire.headers), **facts)
        await exchange.publish(sent, routing_key=wire.routing_key)
        name = f"{world.settings.exchange}.hotel"
        queue = await channel.get_queue(name)

        async def is_dead_lettered() -> bool:
            if taken := await queue.get(fail=False):
                await taken.reject(requeue=False)
            dead = await channel.declare_queue(f"{name}.dead", passive=True)
            return bool(dead.declaration_result.message_count)

        await eventually(is_dead_lettered)
