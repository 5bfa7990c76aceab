"""The progress that constructed log entries and rows lead to."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from itertools import combinations, product

import pytest

from services.inventory.app import app as inventory
from services.notification.app import app as notification
from services.payment.app import app as payment
from services.shipping.app import app as shipping
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
from tests.unit.tracking.trips import node, plain, statuses
from toolkit.declaration.choreography import Choreography
from toolkit.operations.views import SagaView
from toolkit.protocol.fence import SagaState, StepState
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.pending_rows import OverdueStep, UnsentMessage
from toolkit.protocol.timeline import tell
from toolkit.tracking.progress import Status, progress

ORDERS = Choreography([inventory, payment, shipping, notification])


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
    ("entries", "beginning"),
    [
        ([*UNDER_WAY, *FENCED], "Aborted at T, before create_shipment: cc. process_payment (payment) is under way"),
        (
            [*UNDER_WAY, *FENCED, TIMED_OUT, RELEASED],
            "Aborted at T, before create_shipment: cc. Payment refused at T: TimeoutError. Inventory released.",
        ),
        ([*UNDER_WAY, TIMED_OUT, *FENCED, RELEASED], "Payment refused at T: TimeoutError. Inventory released."),
    ],
)
def test_abort_is_named_unless_a_refusal_was_first(entries, beginning):
    found = progress(tell("order-2", by_service(shown(entries))), ORDERS, {}, now=NOON)

    assert plain(found).startswith(beginning)


def test_lost_event_names_the_step_that_waits():
    entries = shown(paid_order("order-2"))
    step = OverdueStep(
        saga_id="order-2",
        step="process_payment",
        saga_type="order",
        position=1,
        state=StepState.COMPLETED,
        saga_state=SagaState.PENDING,
        since=entries[-1].at,
        nudges=3,
        aborted=False,
    )
    seen = {"payment": SagaView(overdue=[step])}

    found = progress(tell("order-2", by_service(entries)), ORDERS, seen, now=NOON)

    assert found.summary == (
        "Payment processed at 12:00:02. Overdue: waiting for shipping to begin create_shipment, since PaymentProcessed "
        "at 12:00:02. Nudged 3 times. Still to come: send_confirmation (notification)."
    )
    assert node(found, "create_shipment").status is Status.OVERDUE


def test_unsent_event_is_reported_with_its_tries():
    entries = shown(paid_order("order-2"))
    row = UnsentMessage(
        id="row-1",
        event_id=str(entries[-1].emitted_id),
        event_type="PaymentProcessed",
        saga_type="order",
        saga_id="order-2",
        occurred_at=entries[-1].at,
        due_at=entries[-1].at,
        tries=7,
        destination=None,
        attempt=1,
    )

    found = progress(tell("order-2", by_service(entries)), ORDERS, {"payment": SagaView(outbox=[row])}, now=NOON)

    assert "PaymentProcessed is still in the outbox after 7 failed tries." in found.summary


def test_pruned_step_is_unknown_and_not_skipped():
    entries = [entry for entry in shown(fulfilled_order("order-1")) if entry.service != "payment"]

    found = progress(tell("order-1", by_service(entries)), ORDERS, {}, now=NOON)

    assert node(found, "process_payment").status is Status.UNKNOWN
    assert node(found, "refund_payment").status is Status.SKIPPED


def test_nodes_behind_unknown_service_are_unknown():
    known = Choreography([inventory, payment, notification])
    timeline = tell("order-2", by_service(shown(paid_order("order-2"))), unreachable={"shipping": "away"})

    found = progress(timeline, known, {}, now=NOON)

    assert statuses(found) == {
        "reserve_inventory": "done", "process_payment": "done", "send_confirmation": "unknown", "?": "unknown",
        "refund_payment": "unknown", "release_inventory": "unknown", "send_cancellation_notice": "unknown",
    }  # fmt: skip


def test_refused_order_has_a_readable_summary():
    entries = shown(refused_order("order-3"))

    found = progress(tell("order-3", by_service(entries)), ORDERS, {}, now=NOON)

    assert found.summary == (
        "Shipping refused at 12:00:03: we do not ship to AQ. Payment refunded. Inventory released. Ended."
    )


def test_duration_counts_from_the_earliest_entry():
    entries = shown(fulfilled_order("order-1"))
    late = replace(entries[0], service="accounting", step="open_account", at=entries[0].at + timedelta(seconds=60))

    timeline = tell("order-1", by_service([*entries, late]))
    found = progress(timeline, ORDERS, {}, now=NOON)

    assert timeline.entries[0] == late  # in the order of cause and effect; equals go by the service's name
    assert found.summary == "Completed at 12:00:04, 4.0 s after it began."


@pytest.mark.parametrize("order", [fulfilled_order, refused_order])
def test_unreachable_services_are_never_reported_as_known(order):
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


def test_hundreds_of_entries_are_read_quickly():
    tried = shown(paid_order("order-2"))[:2]
    failure = entry("order-2", "payment", "process_payment", "retrying", PENDING, "InventoryReserved", position=None)
    entries = [*tried, *(replace(shown([failure])[0], attempt=number) for number in range(1, 500))]
    began = time.perf_counter()

    found = progress(tell("order-2", by_service(entries)), ORDERS, {}, now=NOON)

    assert time.perf_counter() - began < 0.5
    assert node(found, "process_payment").attempt == 500


def test_dropped_dead_letter_shows_reason_and_cure():
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


def test_redriven_step_has_all_its_attempts_again():
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
