"""A coordinator that gives up on a step, or is aborted, at any moment: the step that is under way is undone first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.conformance.coordinated import ASKED, abort, check, timer
from tests.conformance.world import World, message
from tests.eventually import eventually
from tests.example_sagas.orchestrated_travel import COORDINATOR
from tests.example_sagas.travel import TripRequested
from toolkit.declaration.events import SagaEnded
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage

TRIP = "trip-1"
#: What remains of each step that its coordinator gave up while it ran.
LEFT = {
    "book_room": {"hotel": ["room booked", "room 12 cancelled"], "flight": [], "desk": ["apologized"]},
    "book_flight": {
        "hotel": ["room booked", "room 12 cancelled"],
        "flight": ["flight booked", "flight cancelled"],
        "desk": ["apologized"],
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


@pytest.mark.parametrize("step", LEFT)
async def test_a_step_given_up_while_it_runs_is_undone(orchestrated_world: World, step: str) -> None:
    world = orchestrated_world
    world.script.plan(step, line(world, step, gives_up(step)))

    await world.request(TRIP)

    await check(world, TRIP, "Failed")
    assert {service: await world.effects(service, TRIP) for service in ASKED} == LEFT[step]


@pytest.mark.parametrize("step", ["book_room", "issue_ticket"])
async def test_a_step_given_up_before_it_ran_never_runs(orchestrated_world: World, step: str) -> None:
    world = orchestrated_world
    world.script.plan(step, line(world, step, gives_up(step), fails=True))

    await world.request(TRIP)

    await check(world, TRIP, "Failed")
    assert "fenced" in await world.states({name: service for service, name in ASKED.items()}[step], TRIP)
    assert await world.effects("desk", TRIP) == ["apologized"]


async def test_the_end_may_come_before_the_last_reply(orchestrated_world: World) -> None:
    world = orchestrated_world
    ended = SagaEnded(saga_type="trip", completed=(TRIP,))
    early = message(ended, "", event_id=new_id())

    async def announce() -> None:
        await world.runtimes[COORDINATOR].batcher.deliver(early)

    world.script.plan("issue_ticket", announce)

    await world.request(TRIP)

    await check(world, TRIP, "Completed")
    last = {entry.step: entry.to_state for entry in await world.log(COORDINATOR, TRIP) if entry.position}
    assert set(last.values()) == {"confirmed"}


async def test_a_late_success_that_is_final_stands(orchestrated_world: World) -> None:
    world = orchestrated_world
    world.script.plan("issue_ticket", line(world, "issue_ticket", gives_up("issue_ticket")))

    await world.request(TRIP)

    await check(world, TRIP, "Completed")
    assert await world.effects("desk", TRIP) == ["ticket issued"]


async def test_a_refusal_after_the_deadline_counts_as_undone(orchestrated_world: World) -> None:
    world = orchestrated_world
    world.script.always("book_room", line(world, "book_room", gives_up("book_room")), TRIP)
    world.script.plan("book_room", "refuse")

    await world.request(TRIP)

    await check(world, TRIP, "Failed")
    assert await world.states("hotel", TRIP) == ["failed"]
    assert await world.effects("desk", TRIP) == ["apologized"]


@pytest.mark.parametrize("step", ASKED.values())
async def test_an_abort_at_each_step_ends_the_trip(orchestrated_world: World, step: str) -> None:
    world = orchestrated_world
    world.script.plan(step, line(world, step, abort(TRIP)))

    await world.request(TRIP)

    await check(world, TRIP, "Completed" if step == "issue_ticket" else "Failed")


async def test_an_abort_while_undoing_changes_nothing(orchestrated_world: World) -> None:
    world = orchestrated_world
    world.script.always("issue_ticket", "refuse", TRIP)

    async def is_aborted() -> None:
        await world.runtimes[COORDINATOR].batcher.deliver(abort(TRIP))

    world.script.plan("cancel_room", is_aborted)

    await world.request(TRIP)

    await check(world, TRIP, "Failed")
    assert await world.effects("hotel", TRIP) == ["room booked", "room 12 cancelled"]
