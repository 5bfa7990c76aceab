"""Dead letters are redriven and dropped by hand; harmless twice, and audited."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from tests.conformance.operators import (
    ADA,
    ALL,
    all_apologized,
    audited,
    redrive,
    restart,
    store_dead_letters,
    trip_with_a_dead_letter,
)
from tests.conformance.world import World, message
from tests.eventually import eventually
from tests.example_sagas.travel import TripRequested
from toolkit.declaration.events import SagaEnded
from toolkit.messaging.envelope import WireMessage
from toolkit.operations import dead_letters as dead_letter_operations


async def test_a_redriven_compensation_continues_in_order(world: World) -> None:
    trip = await trip_with_a_dead_letter(world)

    batch = await redrive(world, "flight")
    await world.quiet()

    assert [(row.saga_id, row.outcome) for row in batch.rows] == [(trip, "redriven")]
    assert await world.states("flight", trip) == ["executing", "completed", "compensating", "compensated"]
    flight = next(entry for entry in await world.log("flight", trip) if entry.to_state == "compensated")
    room = next(entry for entry in await world.log("hotel", trip) if entry.to_state == "compensated")
    assert room.event_id == flight.emitted_id
    assert await world.state(trip) == "Failed"
    assert await world.dead_letters("flight") == []


async def test_a_redrive_restores_all_attempts(world: World) -> None:
    trip = await trip_with_a_dead_letter(world)
    world.script.plan("cancel_flight", *[ConnectionError("still away")] * 2)

    await redrive(world, "flight")
    await world.quiet()

    notes = await world.notes("flight", trip)
    assert notes == ["retrying", "retrying", "dead_lettered", "redriven", "retrying", "retrying", "ended"]
    assert await world.state(trip) == "Failed"


async def test_a_void_continues_after_a_redrive(world: World) -> None:
    world.script.plan("book_flight", *[ConnectionError("airline away")] * 3)
    world.script.plan("cancel_flight", *[ConnectionError("airline away")] * 3)
    trip = await world.request()
    await world.quiet()

    await redrive(world, "flight")
    await world.quiet()

    assert await world.states("flight", trip) == ["executing", "voiding", "failed"]
    assert await world.state(trip) == "Failed"


async def test_a_redrive_of_an_ended_saga_is_refused(world: World) -> None:
    trip = await trip_with_a_dead_letter(world)
    await world.send(message(SagaEnded(saga_type="trip", failed=(trip,)), ""))
    await world.quiet()

    batch = await redrive(world, "flight")
    await world.quiet()

    assert [row.outcome for row in batch.rows] == ["refused"]
    assert batch.rows[0].why.startswith(f"saga {trip} has ended (Failed)")
    assert len(await world.dead_letters("flight")) == 1
    assert await audited(world, "flight") == []


async def test_concurrent_redrives_take_each_dead_letter_once(world: World) -> None:
    trip = await trip_with_a_dead_letter(world)

    batches = await asyncio.gather(*(redrive(world, "flight") for _ in range(5)))
    await world.quiet()

    assert [row.outcome for batch in batches for row in batch.rows] == ["redriven"]
    assert (await world.notes("flight", trip)).count("redriven") == 1
    assert await audited(world, "flight") == [("ada@desk", "redrive", "the airline is back", trip)]
    assert world.script.calls["cancel_flight"] == 4


async def test_a_dry_run_changes_nothing(world: World) -> None:
    trip = await trip_with_a_dead_letter(world)

    batch = await redrive(world, "flight", dry_run=True)
    await world.quiet()

    assert [(row.saga_id, row.outcome) for row in batch.rows] == [(trip, "would be redriven")]
    assert len(await world.dead_letters("flight")) == 1
    assert "redriven" not in await world.notes("flight", trip)


async def test_a_still_unreadable_message_returns_as_dead_letter(world: World) -> None:
    poison = WireMessage(b'{"trip_id": "t"}', "hotel.RoomBooked", message_id="m-1", correlation_id=None)
    await store_dead_letters(world, "flight", poison, reason="no saga id")

    await redrive(world, "flight")
    await eventually(lambda: world.dead_letters("flight"))
    await world.quiet()

    (dead_letter,) = await world.dead_letters("flight")
    assert (dead_letter.reason, dead_letter.message_id, dead_letter.body) == (
        "no saga id",
        "m-1",
        '{"trip_id": "t"}',
    )


async def test_an_unreadable_order_keeps_its_sagas_id(world: World) -> None:
    await world.send(WireMessage(b'{"trip_id": "trip-1"}', "agency.TripRequested", headers={"event-version": 7}))
    await eventually(lambda: world.dead_letters("hotel"))

    await redrive(world, "hotel")
    await eventually(lambda: world.dead_letters("hotel"))
    await world.quiet()

    (dead_letter,) = await world.dead_letters("hotel")
    assert (dead_letter.reason, dead_letter.saga_id) == ("unknown version", "trip-1")


async def test_hundreds_of_dead_letters_are_redriven_in_batches(world: World) -> None:
    await restart(world, relay_lease=timedelta(seconds=30))  # a busy machine may take longer than the tests' short one
    trips = [f"trip-{number}" for number in range(250)]
    world.script.always("book_room", "refuse", *trips)
    await store_dead_letters(world, "hotel", *(message(TripRequested(trip_id=trip), trip) for trip in trips))

    batches = [await redrive(world, "hotel")]
    while batches[-1].after is not None:
        batches.append(await redrive(world, "hotel", after=batches[-1].after))
    await eventually(lambda: all_apologized(world, len(trips)), within=120)
    await world.quiet()

    assert len(batches) > 2
    assert sum(len(batch.rows) for batch in batches) == len(trips)
    assert await world.dead_letters("hotel") == []
    assert len(await audited(world, "hotel")) == len(trips)


async def test_a_dropped_dead_letter_is_noted(world: World) -> None:
    trip = await trip_with_a_dead_letter(world)
    runtime = world.runtimes["flight"]

    await dead_letter_operations.drop(runtime.database, ALL, ADA, now=datetime.now(UTC))

    assert await world.dead_letters("flight") == []
    assert (await world.log("flight", trip))[-1].error == "the airline is back"
    assert (await world.notes("flight", trip))[-1] == "dropped"
    assert await audited(world, "flight") == [("ada@desk", "drop", "the airline is back", trip)]
