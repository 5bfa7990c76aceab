"""The progress of ended and unknown sagas: summary, statuses and gaps, upon real runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.eventually import eventually
from tests.unit.tracking.trips import BACKWARD, FORWARD, LATER, node, plain, progress_of, statuses
from toolkit import Retry
from toolkit.declaration.choreography import Choreography
from toolkit.messaging.envelope import abort_request
from toolkit.protocol.timeline import tell
from toolkit.tracking.progress import Status, progress


async def test_completed_saga_has_nothing_remaining(world):
    trip = await world.request()
    await world.quiet()

    found = await progress_of(world, trip)

    assert plain(found).startswith("Completed at T, 0.")
    assert found.summary.endswith(" s after it began.")
    assert statuses(found) == dict.fromkeys(FORWARD, "done") | dict.fromkeys(BACKWARD, "skipped")
    assert found.remaining == []


async def test_refused_saga_shows_reason_and_compensations(world):
    world.script.plan("issue_ticket", "refuse")
    trip = await world.request()
    await world.quiet()

    found = await progress_of(world, trip)

    assert plain(found) == (
        "Desk refused issue_ticket at T: passport expired. Flight cancelled. Room cancelled. Ended."
    )
    assert statuses(found) == {
        "book_room": "undone", "book_flight": "undone", "issue_ticket": "refused",
        "cancel_flight": "done", "cancel_room": "done", "apologize": "done",
    }  # fmt: skip


async def test_service_with_one_step_refuses_by_name(world):
    world.script.plan("book_flight", "refuse")
    trip = await world.request()
    await world.quiet()

    assert plain(await progress_of(world, trip)) == "Flight refused at T: fully booked. Room cancelled. Ended."


async def test_node_has_the_events_it_took_and_emitted(world):
    trip = await world.request()
    await world.quiet()

    flight = node(await progress_of(world, trip), "book_flight")

    assert (flight.event_in.type, flight.event_in.body) == (
        "RoomBooked",
        {"trip_id": trip, "room": "12"},
    )
    assert (flight.event_out.type, flight.event_out.body["seat"]) == ("FlightBooked", "7A")
    assert (flight.kind, flight.attempt, flight.attempts) == ("step", 1, 3)


async def test_aborted_saga_shows_the_aborts_reason(world):
    world.script.plan("issue_ticket", Retry("the printer is out of paper", after=LATER))
    trip = await world.request()
    await eventually(lambda: world.own("desk"))

    await world.send(abort_request("trip", trip, "the customer called", now=datetime.now(UTC)))
    await eventually(lambda: world.state(trip))

    found = await progress_of(world, trip)
    assert plain(found).startswith("Aborted at T, before issue_ticket: the customer called. Flight cancelled.")
    assert plain(found).endswith("Room cancelled. Ended.")
    assert node(found, "issue_ticket").status is Status.FENCED


@pytest.mark.parametrize("away", ["hotel", "flight", "desk"])
async def test_steps_of_unreachable_service_are_unknown(world, away):
    world.script.plan("issue_ticket", "refuse")
    trip = await world.request()
    await world.quiet()

    found = await progress_of(world, trip, away=(away,))

    assert {str(each.status) for each in found.nodes if each.service == away} <= {"unknown", "skipped"}
    assert all(each.status is Status.UNKNOWN for each in found.nodes if each.service == away and each.kind == "step")
    assert f"{away.capitalize()} can't be reached: whether " in found.summary
    assert all(each.status is not Status.REMAINING for each in found.nodes if each.service == away)


async def test_service_without_log_or_contract_is_named(world):
    trip = await world.request()
    await world.quiet()

    found = await progress_of(world, trip, away=("flight",), unknown=("flight",))

    assert [(each.service, each.name, each.status) for each in found.nodes if each.service == "flight"] == [
        ("flight", "?", Status.UNKNOWN)
    ]


async def test_logs_suffice_where_contracts_are_missing(world):
    world.script.plan("issue_ticket", "refuse")
    trip = await world.request()
    await world.quiet()

    found = await progress_of(world, trip, unknown=("hotel", "flight", "desk"))

    assert plain(found) == (
        "Desk refused issue_ticket at T: passport expired. Flight cancelled. Room cancelled. Ended."
    )
    assert {(each.name, each.status) for each in found.nodes} == {
        ("book_room", "undone"), ("book_room (undone)", "done"), ("book_flight", "undone"),
        ("book_flight (undone)", "done"), ("issue_ticket", "refused"), ("apologize", "done"),
    }  # fmt: skip


async def test_unknown_saga_names_unreachable_services_too(world):
    known = await progress_of(world, "trip-404")
    partly = await progress_of(world, "trip-404", away=("desk",))

    assert (known.summary, known.nodes) == ("No service knows a saga trip-404.", [])
    assert partly.summary == (
        "No reachable service knows a saga trip-404. Desk can't be reached: what it did is not known."
    )


async def test_time_of_another_day_has_its_date(world):
    trip = await world.request()
    await world.quiet()
    entries = [replace(entry, at=entry.at - timedelta(days=3)) for entry in await world.log("desk", trip)]
    day = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()

    found = progress(tell(trip, {"desk": entries}), Choreography([]), {})

    assert found.summary.startswith(f"Completed at {day} ")
