"""The progress of running sagas: what they wait for, and what is still to come, upon real runs."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.conformance.world import EmbeddedWorld, message, settings_for
from tests.eventually import eventually
from tests.example_sagas.travel import RoomBooked
from tests.unit.tracking.trips import BACKWARD, FORWARD, LATER, node, plain, progress_of, statuses
from toolkit import Retry
from toolkit.tracking.progress import Status


async def swept(world: EmbeddedWorld, service: str) -> bool:
    await world.runtimes[service].watchdog.sweep()
    return "nudged" in {entry.to_state for entry in await world.log(service)}


async def test_retry_shows_next_attempt_and_its_error(world):
    world.script.plan("issue_ticket", Retry("the printer is out of paper", after=LATER))
    trip = await world.request()
    await eventually(lambda: world.own("desk"))

    found = await progress_of(world, trip)

    waiting = node(found, "issue_ticket")
    assert (waiting.status, waiting.attempt, waiting.attempts) == (Status.RUNNING, 2, 3)
    assert waiting.next_at - waiting.at == pytest.approx(LATER, abs=timedelta(seconds=5))
    assert "issue_ticket (desk) failed at " in found.summary
    assert ": Retry: the printer is out of paper. Attempt 2 of 3 follows at " in found.summary
    assert statuses(found) == dict.fromkeys(FORWARD[:2], "done") | {"issue_ticket": "running"} | dict.fromkeys(
        BACKWARD, "skipped"
    )


async def test_remaining_steps_come_in_their_order(world):
    world.script.plan("book_room", Retry("the clerk is out", after=LATER))
    trip = await world.request()
    await eventually(lambda: world.own("hotel"))

    found = await progress_of(world, trip)

    assert found.summary.endswith("Still to come: book_flight (flight), issue_ticket (desk).")
    assert [each.name for each in found.remaining] == FORWARD


async def test_external_call_shows_when_it_began(world):
    answer = asyncio.Event()
    world.script.plan("book_flight", answer.wait)
    trip = await world.request()
    await eventually(lambda: world.states("flight", trip))

    found = await progress_of(world, trip)
    answer.set()
    await world.quiet()

    assert plain(found) == (
        "Room booked at T. book_flight (flight) is under way since T. Still to come: issue_ticket (desk)."
    )
    assert node(found, "book_flight").status is Status.RUNNING


async def test_remaining_compensations_come_in_reverse_order(world):
    world.script.plan("issue_ticket", "refuse")
    world.script.plan("cancel_flight", Retry("the airline is closed", after=LATER))
    trip = await world.request()
    await eventually(lambda: world.own("flight"))

    found = await progress_of(world, trip)

    assert plain(found).startswith(
        "Desk refused issue_ticket at T: passport expired. cancel_flight (flight) failed at T"
    )
    assert found.summary.endswith("Still to come: cancel_room (hotel), apologize (desk).")
    assert [(each.name, each.status) for each in found.remaining] == [
        ("cancel_flight", Status.RUNNING),
        ("cancel_room", Status.REMAINING),
        ("apologize", Status.REMAINING),
    ]


async def test_dead_letter_names_the_command_that_helps(world):
    world.script.plan("issue_ticket", "refuse")
    world.script.plan("cancel_room", *[ValueError("the ledger is locked")] * 3)
    trip = await world.request()
    await eventually(lambda: world.dead_letters("hotel"))

    found = await progress_of(world, trip)

    (dead_letter,) = await world.dead_letters("hotel")
    stopped = node(found, "cancel_room")
    assert (stopped.status, stopped.dead_letter_id, stopped.attempt) == (Status.DEAD_LETTER, dead_letter.id, 3)
    assert "cancel_room (hotel) was dead-lettered at " in found.summary
    assert (
        "needs a person: retries spent after 3 attempts: ValueError: the ledger is locked. "
        f"See `saga dead-letters show hotel {dead_letter.id}`." in found.summary
    )
    assert found.summary.endswith("Still to come: apologize (desk).")


async def test_several_dead_letters_are_summarised_once(world):
    trip = "trip-broken-twice"
    wire = message(RoomBooked(trip_id=trip), trip)
    for body in (b"{}", b"[]"):
        await world.send(wire.__class__(**{name: getattr(wire, name) for name in wire.__slots__} | {"body": body}))

    async def has_both() -> bool:
        return len(await world.dead_letters("flight")) == 2

    await eventually(has_both)

    found = await progress_of(world, trip)

    assert found.summary.endswith(
        f"2 dead letters are left in flight: see `saga dead-letters ls flight --saga {trip}`."
    )


async def test_unreadable_event_is_named_as_dead_letter(world):
    trip = "trip-broken"
    wire = message(RoomBooked(trip_id=trip), trip)
    await world.send(wire.__class__(**{name: getattr(wire, name) for name in wire.__slots__} | {"body": b"{}"}))
    await eventually(lambda: world.dead_letters("flight"))

    found = await progress_of(world, trip)

    (dead_letter,) = await world.dead_letters("flight")
    assert found.summary == (
        f"No service knows a saga {trip}. "
        f"A dead letter is left in flight: see `saga dead-letters show flight {dead_letter.id}`."
    )


async def test_overdue_saga_counts_its_nudges(tmp_path):
    settings = settings_for(tmp_path, overdue_after=timedelta(seconds=1), watch_every=LATER, nudge_every=LATER)
    world = EmbeddedWorld(settings)
    await world.start()
    world.script.plan("book_flight", *[Retry("the airline is closed", after=LATER)] * 2)
    trip = await world.request()
    await eventually(lambda: world.own("flight"))
    await eventually(lambda: swept(world, "hotel"))
    await eventually(lambda: swept(world, "flight"))

    found = await progress_of(world, trip)
    await world.stop()

    late = node(found, "book_flight")
    assert (late.status, late.nudges) == (Status.OVERDUE, 1)
    assert " Overdue: book_flight (flight) failed at " in found.summary
    assert " Nudged 1 time. Still to come: issue_ticket (desk)." in found.summary
