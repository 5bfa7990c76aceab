"""A coordinator that gives up on a step, or is aborted, at any moment: the step that is under way is undone first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.conformance.coordinated import (
    APOLOGY,
    ASKED,
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
    ended,
    logs,
    timer,
)
from tests.conformance.world import World, message
from tests.eventually import eventually
from tests.example_sagas.orchestrated_travel import COORDINATOR
from tests.example_sagas.travel import TripRequested
from toolkit.declaration.events import SagaEnded
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage

TRIP = "trip-1"
#: What remains of a trip whose coordinator gave up this step while it ran.
LEFT = {
    "book_room": {"hotel": ["room booked", "room 12 cancelled"], "flight": [], "desk": ["apologized"]},
    "book_flight": {
        "hotel": ["room booked", "room 12 cancelled"],
        "flight": ["flight booked", "flight cancelled"],
        "desk": ["apologized"],
    },
    "issue_ticket": {"hotel": ["room booked"], "flight": ["flight booked"], "desk": ["ticket issued"]},
}
#: The logs of that trip. The ticket is final: its late success stands.
LOGS = {
    "book_room": {
        COORDINATOR: ended("trip_plan", book_room=GIVEN_UP), "hotel": ROOM_UNDONE, "flight": {}, "desk": APOLOGY
    },
    "book_flight": {
        COORDINATOR: ended("trip_plan", book_room=UNDONE, book_flight=GIVEN_UP),
        "hotel": ROOM_UNDONE,
        "flight": FLIGHT_UNDONE,
        "desk": APOLOGY,
    },
    "issue_ticket": {
        COORDINATOR: ended(
            "trip_plan", well=True, book_room=DONE, book_flight=DONE,
            issue_ticket=["executing", "voiding", "completed", "confirmed"],
        ),
        "hotel": ROOM_DONE,
        "flight": FLIGHT_DONE,
        "desk": {"issue_ticket": ["completed", "confirmed"]},
    },
}  # fmt: skip
#: The logs of a trip whose coordinator gave up this step before it could run.
NEVER_RAN = {
    "book_room": LOGS["book_room"] | {"hotel": {"book_room": ["fenced"]}},
    "issue_ticket": {
        COORDINATOR: ended("trip_plan", book_room=UNDONE, book_flight=UNDONE, issue_ticket=GIVEN_UP),
        "hotel": ROOM_UNDONE,
        "flight": FLIGHT_UNDONE,
        "desk": {"issue_ticket": ["fenced"], **APOLOGY},
    },
}


def gives_up(step: str) -> WireMessage:
    """Return the message that makes the coordinator give up on the step."""
    return timer(step, TripRequested(trip_id=TRIP), TRIP)


async def interrupt(world: World, step: str, wire: WireMessage) -> None:
    """Give the coordinator a message while the step runs, and return once it waits no longer for the step."""
    await world.runtimes[COORDINATOR].batcher.deliver(wire)

    async def has_given_up() -> bool:
        entries = [entry for entry in await world.log(COORDINATOR, TRIP) if entry.step == step and entry.position]
        return entries[-1].to_state != "executing"

    await eventually(has_given_up, what=f"{step} is given up")


def line(world: World, step: str, wire: WireMessage, *, fails: bool = False) -> Callable[[], Awaitable[None]]:
    """Return what the step does when it runs: it is interrupted, and then it goes on or raises."""

    async def act() -> None:
        await interrupt(world, step, wire)
        if fails:
            raise RuntimeError("the first attempt fails; the next one comes too late")

    return act


async def check_left(world: World, step: str) -> None:
    """Check that this and no more remains of a trip of which this step was given up while it ran."""
    await check(world, TRIP, "Completed" if step == "issue_ticket" else "Failed")
    assert {service: await world.effects(service, TRIP) for service in ASKED} == LEFT[step]
    assert await logs(world, TRIP) == LOGS[step]


@pytest.mark.parametrize("step", ["book_room", "book_flight"])
async def test_a_step_given_up_while_it_runs_is_undone(orchestrated_world: World, step: str) -> None:
    world = orchestrated_world
    world.script.plan(step, line(world, step, gives_up(step)))

    await world.request(TRIP)

    await check_left(world, step)


@pytest.mark.parametrize("step", NEVER_RAN)
async def test_a_step_given_up_before_it_ran_never_runs(orchestrated_world: World, step: str) -> None:
    world = orchestrated_world
    world.script.plan(step, line(world, step, gives_up(step), fails=True))

    await world.request(TRIP)

    await check(world, TRIP, "Failed")
    assert await logs(world, TRIP) == NEVER_RAN[step]
    assert await world.effects("desk", TRIP) == ["apologized"]


async def test_the_end_may_come_before_the_last_reply(orchestrated_world: World) -> None:
    world = orchestrated_world
    end = SagaEnded(saga_type="trip", completed=(TRIP,))
    early = message(end, "", event_id=new_id())

    async def announce() -> None:
        await world.runtimes[COORDINATOR].batcher.deliver(early)

    world.script.plan("issue_ticket", announce)

    await world.request(TRIP)

    await check(world, TRIP, "Completed")
    steps = dict.fromkeys(ASKED.values(), DONE)
    assert (await logs(world, TRIP))[COORDINATOR] == ended("trip_plan", well=True, **steps)
    assert (await world.notes(COORDINATOR, TRIP)).count("ended") == 2  # of the two steps that had replied


async def test_a_late_success_that_is_final_stands(orchestrated_world: World) -> None:
    world = orchestrated_world
    world.script.plan("issue_ticket", line(world, "issue_ticket", gives_up("issue_ticket")))

    await world.request(TRIP)

    await check_left(world, "issue_ticket")


async def test_a_refusal_after_the_deadline_counts_as_undone(orchestrated_world: World) -> None:
    world = orchestrated_world
    world.script.always("book_room", line(world, "book_room", gives_up("book_room")), TRIP)
    world.script.plan("book_room", "refuse")

    await world.request(TRIP)

    await check(world, TRIP, "Failed")
    assert await logs(world, TRIP) == LOGS["book_room"] | {"hotel": {"book_room": ["failed"]}}
    assert await world.effects("desk", TRIP) == ["apologized"]


@pytest.mark.parametrize("step", ASKED.values())
async def test_an_abort_at_each_step_ends_the_trip(orchestrated_world: World, step: str) -> None:
    world = orchestrated_world
    world.script.plan(step, line(world, step, abort(TRIP)))

    await world.request(TRIP)

    await check_left(world, step)


async def test_an_abort_while_undoing_changes_nothing(orchestrated_world: World) -> None:
    world = orchestrated_world
    world.script.always("issue_ticket", "refuse", TRIP)

    aborts = []

    async def is_aborted() -> None:
        aborts.append(abort(TRIP))
        await world.runtimes[COORDINATOR].batcher.deliver(aborts[-1])

    world.script.plan("cancel_room", is_aborted)

    await world.request(TRIP)

    await check(world, TRIP, "Failed")
    assert len(aborts) == 1
    assert await world.effects("hotel", TRIP) == ["room booked", "room 12 cancelled"]
    assert await logs(world, TRIP) == {
        COORDINATOR: ended("trip_plan", book_room=UNDONE, book_flight=UNDONE, issue_ticket=REFUSED),
        "hotel": ROOM_UNDONE,
        "flight": FLIGHT_UNDONE,
        "desk": {"issue_ticket": ["failed"], **APOLOGY},
    }
