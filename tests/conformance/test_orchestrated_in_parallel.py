"""A coordinator asks several steps at once, and joins their replies, whichever replica takes them."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.coordinated import (
    APOLOGY,
    DONE,
    FLIGHT_DONE,
    FLIGHT_UNDONE,
    GIVEN_UP,
    REFUSED,
    ROOM_DONE,
    ROOM_UNDONE,
    UNDONE,
    abort,
    check,
    check_at_rest,
    ended,
    logs,
)
from tests.conformance.world import RabbitWorld, World
from tests.eventually import eventually
from tests.example_sagas.orchestrated_travel import COORDINATOR
from tests.races import patience, races, waves

#: The coordinator's own stream.
PLAN = "parallel_trip_plan"
COMPLETED = {
    COORDINATOR: ended(PLAN, well=True, taken=4, book_room=DONE, book_flight=DONE, issue_ticket=DONE),
    "hotel": ROOM_DONE,
    "flight": FLIGHT_DONE,
    "desk": {"issue_ticket": ["completed", "confirmed"]},
}
#: The logs after a step's refusal, where both siblings were asked and did run.
REFUSALS = {
    "book_room": {
        COORDINATOR: ended(PLAN, taken=5, book_room=REFUSED, book_flight=UNDONE),
        "hotel": {"book_room": ["failed"]},
        "flight": FLIGHT_UNDONE,
        "desk": APOLOGY,
    },
    "book_flight": {
        COORDINATOR: ended(PLAN, taken=5, book_room=UNDONE, book_flight=REFUSED),
        "hotel": ROOM_UNDONE,
        "flight": {"book_flight": ["executing", "failed"]},
        "desk": APOLOGY,
    },
    "issue_ticket": {
        COORDINATOR: ended(PLAN, taken=7, book_room=UNDONE, book_flight=UNDONE, issue_ticket=REFUSED),
        "hotel": ROOM_UNDONE,
        "flight": FLIGHT_UNDONE,
        "desk": {"issue_ticket": ["failed"], **APOLOGY},
    },
}
SIBLINGS = {"book_room": "book_flight", "book_flight": "book_room"}


async def test_parallel_steps_are_joined(parallel_world: World) -> None:
    world = parallel_world

    trip = await world.request()

    await check(world, trip, "Completed")
    assert await world.effects("desk", trip) == ["ticket issued"]
    assert await logs(world, trip) == COMPLETED


@pytest.mark.parametrize(
    ("step", "hotel", "flight"),
    [
        ("book_room", [], ["flight booked", "flight cancelled"]),
        ("book_flight", ["room booked", "room 12 cancelled"], []),
        ("issue_ticket", ["room booked", "room 12 cancelled"], ["flight booked", "flight cancelled"]),
    ],
)
async def test_a_refusal_undoes_its_siblings(
    parallel_world: World, step: str, hotel: list[str], flight: list[str]
) -> None:
    world, trip = parallel_world, "trip-1"

    async def refuse_after_the_sibling() -> str:
        if sibling := SIBLINGS.get(step):
            await eventually(lambda: has(world, trip, sibling, "completed"), what=f"{sibling} has replied")
        return "refuse"

    world.script.always(step, refuse_after_the_sibling, trip)

    await world.request(trip)

    await check(world, trip, "Failed")
    effects = {service: await world.effects(service, trip) for service in ("hotel", "flight", "desk")}
    assert effects == {"hotel": hotel, "flight": flight, "desk": ["apologized"]}
    assert await logs(world, trip) == REFUSALS[step]


async def has(world: World, trip: str, step: str, state: str) -> bool:
    """Whether the coordinator's log has the step in this state."""
    return state in (await logs(world, trip))[COORDINATOR].get(step, [])


async def test_two_refusals_at_once_undo_nothing(parallel_world: World) -> None:
    world, trip = parallel_world, "trip-1"
    world.script.always("book_room", "refuse", trip)
    world.script.always("book_flight", "refuse", trip)

    await world.request(trip)

    await check(world, trip, "Failed")
    effects = {service: await world.effects(service, trip) for service in ("hotel", "flight", "desk")}
    assert effects == {"hotel": [], "flight": [], "desk": ["apologized"]}


async def test_an_abort_gives_up_all_parallel_steps(parallel_world: World) -> None:
    world, trip = parallel_world, "trip-1"

    async def are_given_up() -> bool:
        return all([await has(world, trip, step, "voiding") for step in SIBLINGS])

    async def flight_is_asked() -> bool:
        return "executing" in await world.states("flight", trip)

    async def is_aborted() -> None:
        await eventually(flight_is_asked, what="the flight is asked, too")
        await world.runtimes[COORDINATOR].batcher.deliver(abort(trip))
        await eventually(are_given_up, what="both steps are given up")

    world.script.plan("book_room", is_aborted)
    world.script.plan("book_flight", lambda: eventually(are_given_up, what="both steps are given up"))

    await world.request(trip)

    await check(world, trip, "Failed")
    assert await logs(world, trip) == {
        COORDINATOR: ended(PLAN, taken=5, book_room=GIVEN_UP, book_flight=GIVEN_UP),
        "hotel": ROOM_UNDONE,
        "flight": FLIGHT_UNDONE,
        "desk": APOLOGY,
    }


@patience(20)
@pytest.mark.parametrize("parallel_world", ["rabbit-sqlite", "rabbit-postgresql"], indirect=True)
async def test_two_replicas_lose_no_join(parallel_world: RabbitWorld) -> None:
    world = parallel_world

    async with world.replica(COORDINATOR):
        for trips in waves([f"trip-{number}" for number in range(races(20))]):
            await asyncio.gather(*(world.request(trip) for trip in trips))
            await eventually(lambda trips=trips: _have_ended(world, trips), within=200, every=0.2, what="all trips")
            await world.quiet()
            for trip in trips:
                await check_at_rest(world, trip, "Completed")
                assert await logs(world, trip) == COMPLETED


async def _have_ended(world: World, trips: list[str]) -> bool:
    return all([await world.state(trip) for trip in trips])
