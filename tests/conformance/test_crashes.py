"""What a crash interrupts continues after the restart."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.conformance.world import RabbitWorld, World, message
from tests.eventually import eventually
from tests.example_sagas.travel import RoomBooked
from toolkit.declaration.events import SagaState
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import saga_log
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import StepState


async def test_a_stopped_service_continues_after_its_restart(world: World) -> None:
    trips = [f"trip-{number}" for number in range(30)]
    sending = [asyncio.create_task(world.request(trip)) for trip in trips]
    await eventually(lambda: world.effects("hotel", "trip-0"))

    await world.stop()
    await asyncio.gather(*sending, return_exceptions=True)
    await world.start()
    await asyncio.gather(*(world.request(trip) for trip in trips))
    await world.quiet()

    assert [await world.state(trip) for trip in trips] == ["Completed"] * 30
    assert [await world.effects("hotel", trip) for trip in trips] == [["room booked"]] * 30


async def test_an_interrupted_external_call_repeats_its_key(world: World) -> None:
    claimed = message(RoomBooked(trip_id="trip-1"), "trip-1")
    await write_the_crashs_log(world, claimed)

    await world.send(claimed)
    await world.quiet()

    assert await world.states("flight", "trip-1") == ["executing", "completed", "confirmed"]
    assert world.script.booked == {"trip:trip-1:book_flight"}


async def test_an_interrupted_void_is_repeated(world: World) -> None:
    claimed = message(RoomBooked(trip_id="trip-1"), "trip-1")
    await write_the_crashs_log(world, claimed, then=StepState.VOIDING)

    await world.send(claimed)
    await world.quiet()

    assert await world.states("flight", "trip-1") == ["executing", "voiding", "failed"]
    assert world.script.voided == {"trip:trip-1:book_flight"}
    assert world.script.calls["book_flight"] == 0


async def test_a_claim_past_its_deadline_is_voided(world: World) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    claimed = message(RoomBooked(trip_id="trip-1"), "trip-1", occurred_at=long_ago)
    await write_the_crashs_log(world, claimed)

    await world.send(claimed)
    await world.quiet()

    assert await world.states("flight", "trip-1") == ["executing", "voiding", "failed"]
    assert world.script.calls["book_flight"] == 0


async def write_the_crashs_log(world: World, claimed: WireMessage, *, then: StepState | None = None) -> None:
    """Write the log as of a process that dies during the external call: the claim, and no outcome."""
    states = [StepState.EXECUTING] + ([then] if then else [])
    entries = [
        Entry(
            service="flight",
            saga_id="trip-1",
            saga_type="trip",
            step="book_flight",
            position=position,
            from_state=states[position - 2] if position > 1 else None,
            to_state=state,
            saga_state=SagaState.PENDING,
            event_id=claimed.message_id,
            event_type="RoomBooked",
            error="gave up" if state is StepState.VOIDING else None,
            at=datetime.now(UTC),
        )
        for position, state in enumerate(states, start=1)
    ]
    async with world.runtimes["flight"].database.transaction() as session:
        await saga_log.append(await session.connection(), entries)


@pytest.mark.parametrize("world", ["rabbit-sqlite", "rabbit-postgresql"], indirect=True)
async def test_a_service_that_lost_its_batcher_is_unready(world: RabbitWorld) -> None:
    hotel = next(app for app in world.apps if app.service.name == "hotel")
    next(task for task in asyncio.all_tasks() if task.get_name() == "batcher of hotel").cancel()

    async def is_reported() -> bool:
        return (await hotel.readiness()).get("batcher") is False

    await eventually(is_reported, what="the end of the batcher")
    trip = await world.request()
    await hotel.stop()
    again = await world.app("hotel")
    await again.start()
    world.apps[world.apps.index(hotel)], world.runtimes["hotel"] = again, again.runtime
    await world.quiet()

    assert await world.state(trip) == "Completed"
    assert "batcher" not in await again.readiness()
