"""A delayed message survives a restart, and comes neither before its time nor past the deadline.

The trip's services run in the simulation, where the test sets the time and kills processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conformance.world import message
from tests.example_sagas.travel import Script, TripRequested, services
from toolkit import Retry, Settings
from toolkit.declaration.events import AbortRequested
from toolkit.ids import new_id
from toolkit.testing.simulation.simulation import Simulation, simulation

TRIP = "trip-1"
SOON, LATER = timedelta(seconds=10), timedelta(seconds=30)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def world(script: Script, tmp_path: Path) -> Iterator[Simulation]:
    settings = Settings(
        data_dir=tmp_path,
        overdue_after=timedelta(minutes=1),
        abort_after=timedelta(minutes=6),
        step_timeouts={"book_flight": timedelta(hours=1)},
    )
    with simulation(services(script), settings) as world:
        yield world


def test_a_delayed_retry_survives_a_restart(world: Simulation, script: Script) -> None:
    script.plan("book_room", Retry("the desk is closed", after=LATER))
    request(world)

    world.advance(SOON)
    world.crash("hotel")
    pass_time(world, LATER - SOON - timedelta(seconds=1))
    calls_too_early = script.calls["book_room"]
    pass_time(world, SOON)

    assert calls_too_early == 1
    assert script.calls["book_room"] == 2
    assert ends(world) == ["Completed"]


def test_attempts_continue_counting_after_a_restart(world: Simulation, script: Script) -> None:
    script.plan("book_room", *[ConnectionError("no answer")] * 3)
    request(world)

    for _ in range(3):
        world.crash("hotel")
        pass_time(world, SOON)

    assert script.calls["book_room"] == 3
    assert ends(world) == ["Failed"]


def test_only_retries_carry_the_attempt_count(world: Simulation, script: Script) -> None:
    script.plan("book_room", *[ConnectionError("no answer")] * 2)
    script.plan("cancel_room", ConnectionError("no answer"))
    script.plan("issue_ticket", "refuse")

    request(world)
    pass_time(world, SOON)

    counted = {parcel.message.type for parcel in world.wire.seen if parcel.message.headers.get("attempt", 1) != 1}
    emitted = {parcel.message.type for parcel in world.wire.seen} - counted
    assert counted == {"TripRequested", "FlightCancelled"}
    assert {"RoomBooked", "RoomCancelled"} <= emitted
    assert {row["attempt"] for row in world.rows("flight", "SELECT attempt FROM saga_log")} == {1}
    assert ends(world) == ["Failed"]


def test_a_retry_past_its_deadline_refuses(world: Simulation, script: Script) -> None:
    script.plan("book_room", Retry("the desk is closed", after=LATER))
    request(world)
    world.advance(LATER + SOON)
    (retry,) = world.wire.waiting

    world.clock.advance(timedelta(minutes=5))
    world.crash("hotel")
    world.deliver(retry)
    world.deliver_all()

    assert script.calls["book_room"] == 1
    assert ends(world) == ["Failed"]


def test_a_slow_call_within_its_timeout_completes(world: Simulation, script: Script) -> None:
    call: asyncio.Future[None] = world.loop.create_future()
    script.plan("book_flight", lambda: call)
    request(world)

    pass_time(world, timedelta(minutes=4), every=SOON)
    notes_meanwhile = notes(world, "hotel")
    call.set_result(None)
    pass_time(world, SOON)

    assert notes_meanwhile == {"overdue", "nudged"}
    assert script.calls["book_flight"] == 1
    assert ends(world) == ["Completed"]


def test_an_aborted_sagas_slow_call_is_undone_afterwards(world: Simulation, script: Script) -> None:
    call: asyncio.Future[None] = world.loop.create_future()
    script.plan("book_flight", lambda: call)
    request(world)

    pass_time(world, timedelta(minutes=8), every=SOON)
    notes_meanwhile = notes(world, "hotel")
    call.set_result(None)
    pass_time(world, SOON)

    assert notes_meanwhile == {"overdue", "nudged", "aborted"}
    assert script.calls["book_flight"] == 1
    assert moves(world, "flight") == ["executing", "completed", "compensating", "compensated"]
    assert ends(world) == ["Failed"]


def test_an_abort_fences_a_step_awaiting_its_retry(world: Simulation, script: Script) -> None:
    script.plan("book_room", Retry("the desk is closed", after=LATER))
    request(world)

    world.wire.hold(abort_of(world))
    pass_time(world, LATER + SOON)

    assert script.calls == {"book_room": 1, "apologize": 1}
    assert moves(world, "hotel") == ["fenced"]
    assert ends(world) == ["Failed"]


@pytest.mark.parametrize("restarted", ["hotel", "flight", "desk"])
def test_a_restarted_service_undoes_an_aborted_saga(world: Simulation, script: Script, restarted: str) -> None:
    script.plan("issue_ticket", Retry("the printer is busy", after=LATER))
    request(world)

    world.crash(restarted)
    world.wire.hold(abort_of(world))
    pass_time(world, LATER + SOON)

    assert moves(world, "flight")[-1] == moves(world, "hotel")[-1] == "compensated"
    assert not script.booked
    assert ends(world) == ["Failed"]


@pytest.mark.parametrize("away", ["hotel", "flight", "desk"])
def test_a_stopped_service_undoes_an_abort_later(world: Simulation, script: Script, away: str) -> None:
    script.plan("issue_ticket", Retry("the printer is busy", after=LATER))
    request(world)

    world.processes[away].kill()
    world.wire.hold(abort_of(world))
    for parcel in [each for each in world.wire.waiting if each.service != away]:
        world.deliver(parcel)
    states_meanwhile = ends(world)
    world.processes[away].start()
    pass_time(world, LATER + SOON)

    assert states_meanwhile == []
    assert moves(world, "flight")[-1] == moves(world, "hotel")[-1] == "compensated"
    assert ends(world) == ["Failed"]


def request(world: Simulation) -> None:
    """Request a trip, and deliver all messages."""
    now = world.clock.now()
    world.wire.hold(message(TripRequested(trip_id=TRIP), TRIP, occurred_at=now))
    world.deliver_all()


def abort_of(world: Simulation):
    event = AbortRequested(saga_type="trip", saga_id=TRIP, reason="the traveller is ill")
    return message(event, TRIP, event_id=new_id(), occurred_at=world.clock.now())


def pass_time(world: Simulation, by: timedelta, *, every: timedelta = timedelta(seconds=1)) -> None:
    """Advance the time in small steps, and deliver each message when it is due."""
    world.deliver_all()
    for _ in range(by // every):
        world.advance(every)
        world.deliver_all()


def moves(world: Simulation, name: str) -> list[str]:
    """Return the states that a service's steps went through."""
    return [
        row["to_state"]
        for row in world.rows(name, "SELECT to_state FROM saga_log WHERE position IS NOT NULL ORDER BY id")
    ]


def notes(world: Simulation, name: str) -> set[str]:
    """Return the notes of a service."""
    return {row["to_state"] for row in world.rows(name, "SELECT to_state FROM saga_log WHERE position IS NULL")}


def ends(world: Simulation) -> list[str]:
    """Return how the trip ended, from the desk's log."""
    query = "SELECT saga_state FROM saga_log WHERE emitted_type IN ('TicketIssued', 'TripFailed')"
    return [row["saga_state"] for row in world.rows("desk", query)]
