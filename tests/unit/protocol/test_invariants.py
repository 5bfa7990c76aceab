"""Each invariant finds a violation planted into a sound timeline, and none in a sound one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.orders import by_service, ended, entry, fulfilled_order, paid_order, refused_order, shown
from toolkit.declaration.events import SagaState
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import StepState
from toolkit.protocol.invariants import Backlog, at_rest, violations_of
from toolkit.protocol.timeline import merge

COMPENSATING, COMPLETED, FAILED = SagaState.COMPENSATING, SagaState.COMPLETED, SagaState.FAILED
HEARD = ("OrderCreated", "InventoryReserved", "PaymentProcessed", "ShipmentCreated", "ShipmentFailed")


def numbered(entries: list[Entry]) -> list[Entry]:
    """Return entries with the positions and the former states that their services would have given them."""
    last: dict[str, tuple[int, str | None]] = {}
    counted = []
    for each in entries:
        position, state = last.get(each.step, (0, None))
        if each.position is not None:
            last[each.step] = position + 1, each.to_state
        counted.append(replace(each, from_state=state, position=position + 1 if each.position is not None else None))
    return counted


def hurt(entries: list[Entry]) -> dict[str, str]:
    """Return what is found in these entries: the invariants, each with what it says first."""
    timeline = merge(by_service(shown(entries)).values())
    found: dict[str, str] = {}
    for violation in violations_of("order-3", timeline, consumed=HEARD):
        assert violation.saga_id == "order-3"
        found.setdefault(violation.invariant, violation.text)
    return found


def fulfilled() -> list[Entry]:
    return numbered(fulfilled_order("order-3"))


def refused() -> list[Entry]:
    return numbered(refused_order("order-3"))


def at(entries: list[Entry], step: str, state: str) -> int:
    return next(index for index, each in enumerate(entries) if (each.step, each.to_state) == (step, state))


def changed(entries: list[Entry], step: str, state: str, **facts: object) -> list[Entry]:
    index = at(entries, step, state)
    return [*entries[:index], replace(entries[index], **facts), *entries[index + 1 :]]


@pytest.mark.parametrize("timeline", [fulfilled, refused])
def test_sound_saga_violates_no_invariant(timeline):
    assert hurt(timeline()) == {}


def test_notes_and_late_duplicates_violate_no_invariant():
    retried = entry(
        "order-3", "shipping", "create_shipment", "retrying", SagaState.PENDING, "PaymentProcessed", position=None
    )
    late = entry("order-3", "payment", "process_payment", "ignored", FAILED, "ShipmentFailed", position=None)

    assert hurt([*refused()[:3], retried, *refused()[3:], late]) == {}


def test_aborted_saga_violates_no_invariant():
    start, *_ = refused()
    timeline = [
        start,
        entry("order-3", "payment", "process_payment", "fenced", COMPENSATING, "AbortRequested", "PaymentFailed"),
        entry("order-3", "inventory", "reserve_inventory", "compensated", COMPENSATING, "PaymentFailed",
              "InventoryReleased", position=2),
        entry("order-3", "notification", "send_cancellation_notice", "completed", FAILED, "InventoryReleased",
              "OrderFailed"),
        ended("order-3", "inventory", "reserve_inventory"),
    ]  # fmt: skip

    assert hurt(numbered(timeline)) == {}


def test_clients_own_message_id_can_start_a_saga():
    assert hurt(changed(fulfilled(), "reserve_inventory", "completed", event_id="the client's own")) == {}


def test_a_saga_that_has_not_ended_is_found():
    found = hurt(numbered(paid_order("order-3")))

    assert found["every saga ends"] == "it has not ended: process_payment is completed"


def test_a_saga_that_ended_both_ways_is_found():
    both = entry("order-3", "notification", "send_cancellation_notice", "completed", FAILED, "ShipmentCreated",
                 "OrderFailed")  # fmt: skip

    assert hurt([*fulfilled(), both])["every saga ends"].startswith("it ended 2 times")


def test_completed_step_in_failed_saga_is_found():
    timeline = [each for each in refused() if (each.step, each.to_state) != ("reserve_inventory", "compensated")]
    timeline = changed(timeline, "send_cancellation_notice", "completed", event_id=timeline[-5].emitted_id)

    assert hurt(timeline)["every saga ends"] == "reserve_inventory is left completed in a saga that ended Failed"


def test_step_left_unconfirmed_by_completion_is_found():
    index = at(fulfilled(), "process_payment", "confirmed")

    found = hurt(fulfilled()[:index] + fulfilled()[index + 1 :])

    assert found["every saga ends"] == "process_payment is left completed in a saga that ended Completed"


def test_compensation_out_of_reverse_order_is_found():
    timeline = refused()
    payment, inventory = (
        at(timeline, "process_payment", "compensated"),
        at(timeline, "reserve_inventory", "compensated"),
    )
    refusal = timeline[at(timeline, "create_shipment", "failed")]
    timeline[inventory] = replace(timeline[inventory], event_id=refusal.emitted_id, event_type="ShipmentFailed")
    timeline[payment] = replace(
        timeline[payment], event_id=timeline[inventory].emitted_id, event_type="InventoryReleased"
    )
    timeline[payment], timeline[inventory] = timeline[inventory], timeline[payment]

    found = hurt(timeline)

    assert found["undone once, in reverse order"] == (
        "reserve_inventory was undone before process_payment, which had followed from it"
    )


def test_compensation_of_undone_step_is_found():
    timeline = [each for each in refused() if (each.step, each.to_state) != ("process_payment", "completed")]

    assert hurt(timeline)["undone once, in reverse order"] == "process_payment was undone, and had never been done"


def test_a_compensation_done_twice_is_found():
    again = replace(refused()[at(refused(), "process_payment", "compensated")], position=4, emitted_id="another")

    assert hurt([*refused(), again])["undone once, in reverse order"] == "process_payment was undone twice"


def test_a_step_done_twice_is_found():
    again = replace(fulfilled()[at(fulfilled(), "create_shipment", "completed")], position=3, emitted_id="another")

    assert hurt([*fulfilled(), again])["one effect per step"].startswith("create_shipment was done 2 times")


def test_an_event_that_two_entries_emitted_is_found():
    timeline = fulfilled()
    paid = timeline[at(timeline, "process_payment", "completed")]

    found = hurt(changed(timeline, "create_shipment", "completed", emitted_id=paid.emitted_id))

    assert found["one effect per step"] == "one event was emitted by two entries"


def test_a_gap_in_a_steps_positions_is_found():
    found = hurt(changed(fulfilled(), "process_payment", "confirmed", position=4))

    assert found["every move is legal"] == "process_payment has the positions 1, 2, 4"


def test_a_move_that_the_fence_forbids_is_found():
    timeline = changed(refused(), "create_shipment", "failed", to_state=StepState.CONFIRMED)

    assert hurt(timeline)["every move is legal"].startswith("create_shipment went from nothing to confirmed")


def test_entry_with_wrong_former_state_is_found():
    timeline = changed(refused(), "process_payment", "compensated", from_state=StepState.EXECUTING)

    assert "its entry has: from executing" in hurt(timeline)["every move is legal"]


def test_an_event_that_nobody_committed_is_found():
    timeline = changed(fulfilled(), "create_shipment", "completed", event_id="from nowhere")

    found = hurt(timeline)

    assert found["every event has its cause"] == "create_shipment took a PaymentProcessed that no entry emitted"


def test_an_event_that_led_to_itself_is_found():
    timeline = fulfilled()
    paid = timeline[at(timeline, "create_shipment", "completed")]

    found = hurt(changed(timeline, "process_payment", "completed", event_id=paid.emitted_id))

    assert "is its own cause" in found["no event causes itself"]


def test_move_after_the_sagas_end_is_found():
    late = entry("order-3", "payment", "process_payment", "compensating", COMPENSATING, "ShipmentFailed", position=5)

    found = hurt([*refused(), late])

    assert found["nothing moves after the end"] == "process_payment became compensating after the end"


def test_arrival_at_a_join_beside_the_end_moves_nothing():
    late = entry("order-3", "payment", "join_refunds", "gathering", COMPENSATING, "ShipmentFailed", position=1)

    assert "nothing moves after the end" not in hurt([*refused(), late])


def test_an_event_that_reached_nobody_is_found():
    timeline = changed(fulfilled(), "create_shipment", "completed", emitted_id="on its way for ever")

    assert hurt(timeline)["nothing is lost"] == "ShipmentCreated of create_shipment was not consumed"


def test_event_without_any_consumer_is_not_lost():
    assert "OrderFulfilled" not in HEARD
    assert "nothing is lost" not in hurt(fulfilled())


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (Backlog("payment", outbox=2), "payment has 2 rows in its outbox"),
        (Backlog("payment", dead_letters=1), "payment has 1 dead letters"),
        (Backlog("payment", queued=3), "payment has 3 messages in its queue"),
        (Backlog("payment", dead_lettered=4), "payment has 4 messages in its dead-letter queue"),
    ],
)
def test_what_is_left_over_at_rest_is_found(left: Backlog, text: str):
    assert [violation.text for violation in at_rest([left, Backlog("shipping", outbox=0)])] == [text]


def test_uncounted_backlog_is_no_violation():
    assert at_rest([Backlog("payment")]) == []
