"""A coordinator asks the steps of unchanged services one after the other, and has them undone in strict reverse."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.conformance.coordinated import ASKED, abort, check, command, reply, timer, undo
from tests.conformance.test_overdue_sagas import done_long_ago
from tests.conformance.world import World, message
from tests.eventually import eventually
from tests.example_sagas.orchestrated_travel import COORDINATOR
from tests.example_sagas.travel import RoomBooked, RoomRefused, TripRequested
from toolkit.ids import new_id
from toolkit.protocol.commands import Outcome, Verb

UNDONE = {
    "book_room": {"hotel": [], "flight": [], "desk": ["apologized"]},
    "book_flight": {"hotel": ["room booked", "room 12 cancelled"], "flight": [], "desk": ["apologized"]},
    "issue_ticket": {
        "hotel": ["room booked", "room 12 cancelled"],
        "flight": ["flight booked", "flight cancelled"],
        "desk": ["apologized"],
    },
}


async def test_a_coordinated_trip_completes_everywhere(orchestrated_world: World) -> None:
    world = orchestrated_world

    trip = await world.request()

    await check(world, trip, "Completed")
    assert await world.effects("desk", trip) == ["ticket issued"]
    assert await world.states("hotel", trip) == ["completed", "confirmed"]
    assert {entry.step for entry in await world.log(COORDINATOR, trip)} == {*ASKED.values(), "trip_plan"}


@pytest.mark.parametrize("step", UNDONE)
async def test_a_refusal_undoes_the_earlier_steps(orchestrated_world: World, step: str) -> None:
    world = orchestrated_world
    world.script.always(step, "refuse", "trip-1")

    trip = await world.request("trip-1")

    await check(world, trip, "Failed")
    assert {service: await world.effects(service, trip) for service in ASKED} == UNDONE[step]


async def test_the_same_start_twice_is_one_saga(orchestrated_world: World) -> None:
    world = orchestrated_world

    for _ in range(3):
        trip = await world.request("trip-1")

    await check(world, trip, "Completed")
    assert await world.effects("hotel", trip) == ["room booked"]


async def test_steps_take_no_event_without_an_address(orchestrated_world: World) -> None:
    world = orchestrated_world

    await world.runtimes["flight"].batcher.deliver(message(RoomBooked(trip_id="trip-1"), "trip-1"))

    await world.quiet()
    assert await world.log("flight", "trip-1") == []


async def test_late_messages_change_no_ended_trip(orchestrated_world: World) -> None:
    world, trip = orchestrated_world, "trip-1"
    world.script.always("issue_ticket", "refuse", trip)
    await world.request(trip)
    await check(world, trip, "Failed")

    states = {service: await world.states(service, trip) for service in (COORDINATOR, *ASKED)}
    late = [
        reply("book_room", Outcome.COMPLETED, RoomBooked(trip_id=trip), trip),
        reply("book_room", Outcome.REFUSED, RoomRefused(trip_id=trip, reason="late"), trip),
        timer("book_flight", RoomBooked(trip_id=trip), trip),
        message(TripRequested(trip_id=trip), trip, event_id=new_id()),
        abort(trip),
    ]
    for wire in late:
        await world.runtimes[COORDINATOR].batcher.deliver(wire)
    for wire in (command(Verb.ASK, "book_room", TripRequested(trip_id=trip), trip), undo("book_room", trip)):
        await world.runtimes["hotel"].batcher.deliver(wire)

    await world.quiet()
    assert {service: await world.states(service, trip) for service in (COORDINATOR, *ASKED)} == states
    assert await world.effects("hotel", trip) == ["room booked", "room 12 cancelled"]


async def test_a_strangers_command_is_refused(orchestrated_world: World) -> None:
    world, trip = orchestrated_world, "trip-1"

    forged = command(Verb.ASK, "book_room", TripRequested(trip_id=trip), trip, coordinator="flight")
    await world.runtimes["hotel"].batcher.deliver(forged)

    assert [each.reason for each in await world.dead_letters("hotel")] == ["wrong coordinator"]
    assert await world.log("hotel", trip) == []


async def test_an_abort_before_the_start_fails_the_trip(orchestrated_world: World) -> None:
    world, trip = orchestrated_world, "trip-1"

    await world.send(abort(trip))
    await world.quiet()
    await world.request(trip)

    await check(world, trip, "Failed")
    assert await world.effects("hotel", trip) == []
    assert await world.effects("desk", trip) == ["apologized"]


async def test_a_nudge_repeats_a_lost_reply(orchestrated_world: World) -> None:
    world, trip = orchestrated_world, "trip-1"
    done = ("hotel", "book_room")
    await done_long_ago(world, RoomBooked(trip_id=trip, room="12"), ago=timedelta(minutes=20), by=done)

    await world.request(trip)  # the step has run: the command changes nothing, and the step's service nudges its reply

    await eventually(lambda: world.state(trip), within=30)
    await world.quiet()
    assert await world.state(trip) == "Completed"
    assert "nudged" in await world.notes("hotel", trip)
    assert await world.states("hotel", trip) == ["completed", "confirmed"]
