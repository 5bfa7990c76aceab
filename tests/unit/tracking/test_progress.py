"""Where a saga stands, and what is to come, told as somebody who has to act on it needs it; upon real runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from pathlib import Path

import pytest

from services.inventory.app import app as inventory
from services.notification.app import app as notification
from services.payment.app import app as payment
from services.shipping.app import app as shipping
from tests.conformance.world import EmbeddedWorld, message, settings_for
from tests.eventually import eventually
from tests.example_sagas.travel import RoomBooked
from tests.orders import (
    COMPENSATING,
    NOON,
    PENDING,
    by_service,
    entry,
    fulfilled_order,
    paid_order,
    refused_order,
    shown,
    undone,
)
from toolkit import Retry
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract
from toolkit.messaging.envelope import abort_request
from toolkit.operations import views
from toolkit.operations.views import SagaView
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.timeline import tell
from toolkit.tracking.progress import NodeProgress, Progress, Status, progress

ORDERS = Choreography([inventory, payment, shipping, notification])
FORWARD = ["book_room", "book_flight", "issue_ticket"]
BACKWARD = ["cancel_flight", "cancel_room", "apologize"]
#: Longer than any test, and shorter than the steps' timeouts: what waits for it is seen waiting.
LATER = timedelta(seconds=40)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[EmbeddedWorld]:
    world = EmbeddedWorld(settings_for(tmp_path))
    await world.start()
    yield world
    await world.stop()


async def told(
    world: EmbeddedWorld, trip: str, *, away: tuple[str, ...] = (), strange: tuple[str, ...] = ()
) -> Progress:
    """Return how far a trip has come, with some services unreachable, and the contracts of some not known."""
    contracts = [Contract.of(service) for service in world.services if service.name not in strange]
    seen: dict[str, SagaView] = {}
    for name in world.runtimes.keys() - set(away):
        declared = next((each.events for each in contracts if each.service == name), {})
        async with world.runtimes[name].database.reading() as connection:
            seen[name] = await views.view(connection, trip, declared)
    timeline = tell(trip, {name: view.entries for name, view in seen.items()}, unreachable=dict.fromkeys(away, "gone"))
    return progress(timeline, Choreography(contracts), seen)


def statuses(found: Progress) -> dict[str, str]:
    return {node.name: str(node.status) for node in found.nodes}


def node(found: Progress, name: str) -> NodeProgress:
    return next(each for each in found.nodes if each.name == name)


def plain(found: Progress) -> str:
    """Return the sentence with its times taken out: `T` for each."""
    return " ".join("T" + word[8:] if word[2:3] == word[5:6] == ":" else word for word in found.summary.split())


async def test_a_saga_that_nobody_refused_is_completed_and_nothing_remains(world):
    trip = await world.request()
    await world.quiet()

    found = await told(world, trip)

    assert plain(found).startswith("Completed at T, 0.")
    assert found.summary.endswith(" s after it began.")
    assert statuses(found) == dict.fromkeys(FORWARD, "done") | dict.fromkeys(BACKWARD, "skipped")
    assert found.remaining == []


async def test_a_refusal_tells_its_reason_and_what_was_undone_in_that_order(world):
    world.script.plan("issue_ticket", "refuse")
    trip = await world.request()
    await world.quiet()

    found = await told(world, trip)

    assert plain(found) == (
        "Desk refused issue_ticket at T: passport expired. Flight cancelled. Room cancelled. Ended."
    )
    assert statuses(found) == {
        "book_room": "undone", "book_flight": "undone", "issue_ticket": "refused",
        "cancel_flight": "done", "cancel_room": "done", "apologize": "done",
    }  # fmt: skip


async def test_a_service_with_one_step_refuses_by_its_name_alone(world):
    world.script.plan("book_flight", "refuse")
    trip = await world.request()
    await world.quiet()

    assert plain(await told(world, trip)) == "Flight refused at T: fully booked. Room cancelled. Ended."


async def test_each_node_tells_what_it_took_and_emitted(world):
    trip = await world.request()
    await world.quiet()

    flight = node(await told(world, trip), "book_flight")

    assert (flight.event_in.type, flight.event_in.body) == (
        "RoomBooked",
        {"trip_id": trip, "room": "12"},
    )
    assert (flight.event_out.type, flight.event_out.body["seat"]) == ("FlightBooked", "7A")
    assert (flight.kind, flight.attempt, flight.attempts) == ("step", 1, 3)


async def test_a_retry_tells_which_attempt_comes_when_and_what_went_wrong(world):
    world.script.plan("issue_ticket", Retry("the printer is out of paper", after=LATER))
    trip = await world.request()
    await eventually(lambda: world.own("desk"))

    found = await told(world, trip)

    waiting = node(found, "issue_ticket")
    assert (waiting.status, waiting.attempt, waiting.attempts) == (Status.RUNNING, 2, 3)
    assert waiting.next_at - waiting.at == pytest.approx(LATER, abs=timedelta(seconds=5))
    assert "issue_ticket (desk) failed at " in found.summary
    assert ": Retry: the printer is out of paper. Attempt 2 of 3 follows at " in found.summary
    assert statuses(found) == dict.fromkeys(FORWARD[:2], "done") | {"issue_ticket": "running"} | dict.fromkeys(
        BACKWARD, "skipped"
    )


async def test_what_is_still_to_come_is_told_in_its_order(world):
    world.script.plan("book_room", Retry("the clerk is out", after=LATER))
    trip = await world.request()
    await eventually(lambda: world.own("hotel"))

    found = await told(world, trip)

    assert found.summary.endswith("Still to come: book_flight (flight), issue_ticket (desk).")
    assert [each.name for each in found.remaining] == FORWARD


async def test_an_outside_call_under_way_is_told_with_its_beginning(world):
    answer = asyncio.Event()
    world.script.plan("book_flight", answer.wait)
    trip = await world.request()
    await eventually(lambda: world.states("flight", trip))

    found = await told(world, trip)
    answer.set()
    await world.quiet()

    assert plain(found) == (
        "Room booked at T. book_flight (flight) is under way since T. Still to come: issue_ticket (desk)."
    )
    assert node(found, "book_flight").status is Status.RUNNING


async def test_on_the_way_back_the_undoing_that_remains_is_told_in_strict_reverse_order(world):
    world.script.plan("issue_ticket", "refuse")
    world.script.plan("cancel_flight", Retry("the airline is closed", after=LATER))
    trip = await world.request()
    await eventually(lambda: world.own("flight"))

    found = await told(world, trip)

    assert plain(found).startswith(
        "Desk refused issue_ticket at T: passport expired. cancel_flight (flight) failed at T"
    )
    assert found.summary.endswith("Still to come: cancel_room (hotel), apologize (desk).")
    assert [(each.name, each.status) for each in found.remaining] == [
        ("cancel_flight", Status.RUNNING),
        ("cancel_room", Status.REMAINING),
        ("apologize", Status.REMAINING),
    ]


async def test_a_dead_letter_needs_a_person_and_names_the_command_that_helps(world):
    world.script.plan("issue_ticket", "refuse")
    world.script.plan("cancel_room", *[ValueError("the ledger is locked")] * 3)
    trip = await world.request()
    await eventually(lambda: world.dead_letters("hotel"))

    found = await told(world, trip)

    (letter,) = await world.dead_letters("hotel")
    stopped = node(found, "cancel_room")
    assert (stopped.status, stopped.dead_letter_id, stopped.attempt) == (Status.DEAD_LETTER, letter["id"], 3)
    assert "cancel_room (hotel) was dead-lettered at " in found.summary
    assert (
        "needs a person: retries spent after 3 attempts: ValueError: the ledger is locked. "
        f"See `saga dead-letters show hotel {letter['id']}`." in found.summary
    )
    assert found.summary.endswith("Still to come: apologize (desk).")


async def test_several_dead_letters_of_a_service_are_told_once(world):
    trip = "trip-broken-twice"
    wire = message(RoomBooked(trip_id=trip), trip)
    for body in (b"{}", b"[]"):
        await world.send(wire.__class__(**{name: getattr(wire, name) for name in wire.__slots__} | {"body": body}))

    async def has_both() -> bool:
        return len(await world.dead_letters("flight")) == 2

    await eventually(has_both)

    found = await told(world, trip)

    assert found.summary.endswith(
        f"2 dead letters are left in flight: see `saga dead-letters ls flight --saga {trip}`."
    )


async def test_an_event_that_can_not_be_read_stops_the_step_that_waits_for_it(world):
    trip = "trip-broken"
    wire = message(RoomBooked(trip_id=trip), trip)
    await world.send(wire.__class__(**{name: getattr(wire, name) for name in wire.__slots__} | {"body": b"{}"}))
    await eventually(lambda: world.dead_letters("flight"))

    found = await told(world, trip)

    (letter,) = await world.dead_letters("flight")
    assert found.summary == (
        f"No service knows a saga {trip}. "
        f"A dead letter is left in flight: see `saga dead-letters show flight {letter['id']}`."
    )


async def test_an_abort_is_told_as_such_with_its_reason(world):
    world.script.plan("issue_ticket", Retry("the printer is out of paper", after=LATER))
    trip = await world.request()
    await eventually(lambda: world.own("desk"))

    await world.send(abort_request("trip", trip, "the customer called", now=datetime.now(UTC)))
    await eventually(lambda: world.state(trip))

    found = await told(world, trip)
    assert plain(found).startswith("Aborted at T, before issue_ticket: the customer called. Flight cancelled.")
    assert plain(found).endswith("Room cancelled. Ended.")
    assert node(found, "issue_ticket").status is Status.FENCED


#: An order whose payment is under way; the abort meets the steps behind it, the last of them first.
UNDER_WAY = [*paid_order("order-2")[:1],
             entry("order-2", "payment", "process_payment", "executing", PENDING, "InventoryReserved")]  # fmt: skip
FENCED = [
    entry("order-2", service, step, "fenced", COMPENSATING, "AbortRequested", error="cc")
    for service, step in (("notification", "send_confirmation"), ("shipping", "create_shipment"))
]
TIMED_OUT = entry("order-2", "payment", "process_payment", "failed", COMPENSATING, "InventoryReserved",
                  "PaymentFailed", position=2, error="TimeoutError")  # fmt: skip
RELEASED = undone("order-2", "inventory", "reserve_inventory", "PaymentFailed", "InventoryReleased", position=2)


@pytest.mark.parametrize(
    ("entries", "tells"),
    [
        ([*UNDER_WAY, *FENCED], "Aborted at T, before create_shipment: cc. process_payment (payment) is under way"),
        (
            [*UNDER_WAY, *FENCED, TIMED_OUT, RELEASED],
            "Aborted at T, before create_shipment: cc. Payment refused at T: TimeoutError. Inventory released.",
        ),
        ([*UNDER_WAY, TIMED_OUT, *FENCED, RELEASED], "Payment refused at T: TimeoutError. Inventory released."),
    ],
)
def test_an_abort_is_told_where_it_came_before_any_refusal_and_the_first_step_that_it_met(entries, tells):
    found = progress(tell("order-2", by_service(shown(entries))), ORDERS, {}, now=NOON)

    assert plain(found).startswith(tells)


async def test_an_overdue_saga_tells_how_often_it_was_nudged(tmp_path):
    settings = settings_for(tmp_path, overdue_after=timedelta(seconds=1), watch_every=LATER, nudge_every=LATER)
    world = EmbeddedWorld(settings)
    await world.start()
    world.script.plan("book_flight", *[Retry("the airline is closed", after=LATER)] * 2)
    trip = await world.request()
    await eventually(lambda: world.own("flight"))
    await eventually(lambda: swept(world, "hotel"))
    await eventually(lambda: swept(world, "flight"))

    found = await told(world, trip)
    await world.stop()

    late = node(found, "book_flight")
    assert (late.status, late.nudges) == (Status.OVERDUE, 1)
    assert " Overdue: book_flight (flight) failed at " in found.summary
    assert " Nudged 1 time. Still to come: issue_ticket (desk)." in found.summary


def test_an_event_that_was_lost_is_told_with_whoever_should_have_taken_it():
    entries = shown(paid_order("order-2"))
    row = {"saga_id": "order-2", "step": "process_payment", "since": entries[-1].at, "nudges": 3, "aborted": False}
    seen = {"payment": SagaView(overdue=[row])}

    found = progress(tell("order-2", by_service(entries)), ORDERS, seen, now=NOON)

    assert found.summary == (
        "Payment processed at 12:00:02. Overdue: waiting for shipping to begin create_shipment, since PaymentProcessed "
        "at 12:00:02. Nudged 3 times. Still to come: send_confirmation (notification)."
    )
    assert node(found, "create_shipment").status is Status.OVERDUE


def test_an_event_that_does_not_go_out_is_told_as_that():
    entries = shown(paid_order("order-2"))
    row = {"event_id": entries[-1].emitted_id, "event_type": "PaymentProcessed", "tries": 7, "destination": None}

    found = progress(tell("order-2", by_service(entries)), ORDERS, {"payment": SagaView(outbox=[row])}, now=NOON)

    assert "PaymentProcessed is still in the outbox after 7 failed tries." in found.summary


def test_what_a_service_has_pruned_is_unknown_and_not_skipped():
    entries = [entry for entry in shown(fulfilled_order("order-1")) if entry.service != "payment"]

    found = progress(tell("order-1", by_service(entries)), ORDERS, {}, now=NOON)

    assert node(found, "process_payment").status is Status.UNKNOWN
    assert node(found, "refund_payment").status is Status.SKIPPED


def test_what_may_come_behind_a_service_of_which_nothing_is_known_is_unknown_and_not_skipped():
    known = Choreography([inventory, payment, notification])
    timeline = tell("order-2", by_service(shown(paid_order("order-2"))), unreachable={"shipping": "away"})

    found = progress(timeline, known, {}, now=NOON)

    assert statuses(found) == {
        "reserve_inventory": "done", "process_payment": "done", "send_confirmation": "unknown", "?": "unknown",
        "refund_payment": "unknown", "release_inventory": "unknown", "send_cancellation_notice": "unknown",
    }  # fmt: skip


def test_the_sentence_of_a_refused_order_reads_as_people_say_it():
    entries = shown(refused_order("order-3"))

    found = progress(tell("order-3", by_service(entries)), ORDERS, {}, now=NOON)

    assert found.summary == (
        "Shipping refused at 12:00:03: we do not ship to AQ. Payment refunded. Inventory released. Ended."
    )


@pytest.mark.parametrize("order", [fulfilled_order, refused_order])
def test_whenever_one_looks_and_whoever_is_away_nothing_is_claimed_that_nobody_knows(order):
    entries = shown(order("order-1"))
    services = ("inventory", "payment", "shipping", "notification")
    absences = [set(away) for count in range(4) for away in combinations(services, count)]

    for end, away in product(range(1, len(entries) + 1), absences):
        seen = [entry for entry in entries[:end] if entry.service not in away]
        timeline = tell("order-1", by_service(seen), unreachable=dict.fromkeys(away, "gone"))
        found = progress(timeline, ORDERS, {}, now=NOON)

        assert all(each.status in ("unknown", "skipped") for each in found.nodes if each.service in away)
        assert all(f"{each.capitalize()} can't be reached" in found.summary for each in away)
        done = {(entry.service, entry.step) for entry in seen if entry.to_state == "completed"}
        assert all(each.status is not Status.REMAINING for each in found.nodes if (each.service, each.name) in done)
        if not away and not timeline.state.is_ended:
            assert any(each.at for each in found.nodes if each.status.is_to_come), found.summary


def test_a_saga_of_hundreds_of_entries_is_told_at_once():
    tried = shown(paid_order("order-2"))[:2]
    failure = entry("order-2", "payment", "process_payment", "retrying", PENDING, "InventoryReserved", position=None)
    entries = [*tried, *(replace(shown([failure])[0], attempt=number) for number in range(1, 500))]
    began = time.perf_counter()

    found = progress(tell("order-2", by_service(entries)), ORDERS, {}, now=NOON)

    assert time.perf_counter() - began < 0.5
    assert node(found, "process_payment").attempt == 500


def test_a_letter_that_was_dropped_is_told_with_the_reason_and_what_helps():
    entries = shown(paid_order("order-2"))
    dropped = replace(
        entries[-1], service="shipping", step="create_shipment", position=None, to_state="dropped",
        event_type="PaymentProcessed", emitted_id=None, emitted_type=None, error="not worth it",
    )  # fmt: skip

    found = progress(tell("order-2", by_service([*entries, dropped])), ORDERS, {}, now=NOON)

    assert node(found, "create_shipment").status is Status.DEAD_LETTER
    assert (
        "needs a person: dropped by hand: not worth it. Once that is mended, `saga replay order-2 --reason TEXT`"
        in found.summary
    )


def test_a_redrive_gives_a_step_all_its_attempts_again():
    def note(to_state: str, attempt: int, error: str) -> LogEntry:
        made = entry("order-2", "payment", "process_payment", to_state, PENDING, "InventoryReserved", position=None)
        return replace(shown([made])[0], attempt=attempt, error=error)

    tried = [note("retrying", number, "TimeoutError") for number in range(1, 4)]
    redriven = [*shown(paid_order("order-2"))[:1], *tried, note("dead_lettered", 4, "retries spent"),
                note("redriven", 1, "the gateway is back")]  # fmt: skip

    at_first = progress(tell("order-2", by_service(redriven)), ORDERS, {}, now=NOON)
    later = progress(
        tell("order-2", by_service([*redriven, note("retrying", 1, "TimeoutError")])), ORDERS, {}, now=NOON
    )

    waiting = node(at_first, "process_payment")
    assert (waiting.status, waiting.attempt, waiting.attempts) == (Status.RUNNING, 1, 4)
    assert "process_payment (payment) is under way since T: redriven by hand: the gateway is back." in plain(at_first)
    assert node(later, "process_payment").attempt == 2
    assert "TimeoutError. Attempt 2 of 4 is on its way." in later.summary


async def swept(world: EmbeddedWorld, service: str) -> bool:
    host = world.runtimes[service]
    await host.watchdog.sweep()
    return "nudged" in {entry.to_state for entry in await world.log(service)}


@pytest.mark.parametrize("away", ["hotel", "flight", "desk"])
async def test_a_service_that_cant_be_reached_is_unknown_and_never_not_done(world, away):
    world.script.plan("issue_ticket", "refuse")
    trip = await world.request()
    await world.quiet()

    found = await told(world, trip, away=(away,))

    assert {str(each.status) for each in found.nodes if each.service == away} <= {"unknown", "skipped"}
    assert all(each.status is Status.UNKNOWN for each in found.nodes if each.service == away and each.kind == "step")
    assert f"{away.capitalize()} can't be reached: whether " in found.summary
    assert all(each.status is not Status.REMAINING for each in found.nodes if each.service == away)


async def test_a_service_of_which_nothing_is_known_at_all_stands_there_by_its_name(world):
    trip = await world.request()
    await world.quiet()

    found = await told(world, trip, away=("flight",), strange=("flight",))

    assert [(each.service, each.name, each.status) for each in found.nodes if each.service == "flight"] == [
        ("flight", "?", Status.UNKNOWN)
    ]


async def test_without_contracts_the_logs_alone_tell_what_was_done(world):
    world.script.plan("issue_ticket", "refuse")
    trip = await world.request()
    await world.quiet()

    found = await told(world, trip, strange=("hotel", "flight", "desk"))

    assert plain(found) == (
        "Desk refused issue_ticket at T: passport expired. Flight cancelled. Room cancelled. Ended."
    )
    assert {(each.name, each.status) for each in found.nodes} == {
        ("book_room", "undone"), ("book_room (undone)", "done"), ("book_flight", "undone"),
        ("book_flight (undone)", "done"), ("issue_ticket", "refused"), ("apologize", "done"),
    }  # fmt: skip


async def test_a_saga_that_nobody_knows_is_said_so_and_so_is_who_could_not_be_asked(world):
    known = await told(world, "trip-404")
    partly = await told(world, "trip-404", away=("desk",))

    assert (known.summary, known.nodes) == ("No service knows a saga trip-404.", [])
    assert partly.summary == (
        "No reachable service knows a saga trip-404. Desk can't be reached: what it did is not known."
    )


async def test_a_time_of_another_day_bears_its_day(world):
    trip = await world.request()
    await world.quiet()
    entries = [replace(entry, at=entry.at - timedelta(days=3)) for entry in await world.log("desk", trip)]
    day = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()

    found = progress(tell(trip, {"desk": entries}), Choreography([]), {})

    assert found.summary.startswith(f"Completed at {day} ")
