"""What waits too long is noted, nudged and at last aborted; clocks decide only when to ask."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete

from tests.conformance.travel import FlightBooked, FlightRefused, RoomBooked, RoomCancelled
from tests.conformance.world import World, message
from tests.eventually import eventually
from toolkit import Event, overdue, saga_log
from toolkit.events import SagaState
from toolkit.fence import StepState
from toolkit.ids import new_id
from toolkit.saga_log import Entry


async def test_a_saga_that_ends_in_time_is_never_overdue(world: World) -> None:
    trip = await world.request()

    await world.quiet()
    await world.hosts["hotel"].watch.sweep()

    assert await world.notes("hotel", trip) == []


async def test_an_event_that_was_lost_is_sent_again_and_the_saga_ends(world: World) -> None:
    await done_long_ago(world, FlightBooked(trip_id="trip-1"), ago=timedelta(minutes=20), by=("flight", "book_flight"))

    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert await world.state("trip-1") == "Completed"
    assert (await world.notes("flight", "trip-1"))[:2] == ["overdue", "nudged"]
    assert await world.states("flight", "trip-1") == ["completed", "confirmed"]


async def test_a_nudge_that_comes_after_the_next_steps_deadline_brings_the_saga_back(world: World) -> None:
    await done_long_ago(world, RoomBooked(trip_id="trip-1", room="12"), ago=timedelta(minutes=20))

    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert await world.state("trip-1") == "Failed"
    assert await world.effects("hotel", "trip-1") == ["room 12 cancelled"]
    assert world.script.calls["book_flight"] == 0


async def test_a_compensation_whose_event_was_lost_is_sent_again(world: World) -> None:
    await done_long_ago(world, RoomBooked(trip_id="trip-1", room="12"), ago=timedelta(minutes=30))
    await done_long_ago(world, RoomCancelled(trip_id="trip-1"), ago=timedelta(minutes=20), position=2)

    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert await world.state("trip-1") == "Failed"
    assert await world.effects("desk", "trip-1") == ["apologized"]


async def test_a_saga_that_no_nudge_helps_is_aborted_and_all_of_it_is_done_or_undone(world: World) -> None:
    await done_long_ago(world, RoomBooked(trip_id="trip-1", room="12"), ago=timedelta(hours=2))

    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert "aborted" in await world.notes("hotel", "trip-1")
    hotel = await world.states("hotel", "trip-1")
    if await world.state("trip-1") == "Completed":
        assert hotel == ["completed", "confirmed"]
    else:
        assert hotel == ["completed", "compensated"]
        assert not world.script.booked


async def test_a_step_is_no_longer_overdue_once_its_saga_has_ended(world: World) -> None:
    await done_long_ago(world, RoomBooked(trip_id="trip-1", room="12"), ago=timedelta(minutes=20))
    world.script.plan("book_flight", "refuse")

    await eventually(lambda: world.state("trip-1"))
    await world.quiet()
    nudges = (await world.notes("hotel", "trip-1")).count("nudged")
    await eventually(lambda: nothing_overdue(world, "hotel"))
    await world.hosts["hotel"].watch.sweep()

    assert (await world.notes("hotel", "trip-1")).count("nudged") == nudges
    assert await world.state("trip-1") == "Failed"


async def test_a_late_nudge_of_a_finished_saga_changes_nothing(world: World) -> None:
    trip = await world.request()
    await world.quiet()

    await world.send(message(RoomBooked(trip_id=trip), trip))
    await world.send(message(FlightRefused(trip_id=trip, reason="stale"), trip))
    await world.quiet()

    assert await world.state(trip) == "Completed"
    assert world.script.calls["book_flight"] == 1


async def nothing_overdue(world: World, service: str) -> bool:
    async with world.hosts[service].database.reading() as connection:
        return not await overdue.listed(connection)


async def done_long_ago(
    world: World,
    emitted: Event,
    *,
    ago: timedelta,
    position: int = 1,
    by: tuple[str, str] = ("hotel", "book_room"),
) -> None:
    """Write what a service's log says when its event was lost on the way, as with a queue that was deleted."""
    entry = Entry(
        service=by[0],
        saga_id="trip-1",
        saga_type="trip",
        step=by[1],
        position=position,
        from_state=StepState.COMPLETED if position > 1 else None,
        to_state=StepState.COMPENSATED if position > 1 else StepState.COMPLETED,
        saga_state=SagaState.COMPENSATING if position > 1 else SagaState.STARTED,
        event_id=new_id(),
        event_type="TripRequested",
        emitted_id=new_id(),
        emitted_type=type(emitted).__name__,
        emitted_body=emitted.model_dump_json(),
        at=datetime.now(UTC) - ago,
    )
    async with world.hosts[by[0]].database.transaction() as session:
        connection = await session.connection()
        await saga_log.append(connection, [entry])
        # The search has passed that time already; nothing is ever written there but by a test.
        await connection.execute(delete(overdue.watched))
