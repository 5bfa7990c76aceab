"""A timeline follows cause and effect, whatever the clocks show and whichever service is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest

from tests.orders import by_service, entry, fulfilled_order, paid_order, refused_order, shown
from toolkit.declaration.events import SagaState
from toolkit.protocol.timeline import Timeline, merge, tell


@pytest.mark.parametrize("order", [fulfilled_order, paid_order, refused_order])
def test_timeline_is_the_same_for_any_log_order(order):
    told = shown(order())

    timelines = [merge(logs) for logs in permutations(by_service(told).values())]

    assert all(timeline == told for timeline in timelines)


def test_wrong_clock_does_not_change_the_timeline():
    late = timedelta(hours=1)
    told = [replace(each, at=each.at - late) if each.service == "payment" else each for each in shown(refused_order())]

    timeline = merge(by_service(told).values())

    assert timeline == told


@pytest.mark.parametrize("missing", ["inventory", "payment", "shipping", "notification"])
def test_unreachable_service_leaves_only_a_gap(missing):
    told = shown(refused_order())
    logs = by_service(told)
    del logs[missing]

    timeline = merge(logs.values())

    assert _names(timeline) == _names([each for each in told if each.service != missing])


def test_notes_of_the_end_follow_the_end():
    logs = by_service(shown(fulfilled_order()))

    timeline = merge(logs.values())

    assert [each.to_state for each in timeline][-4:] == ["confirmed"] * 4


def test_nudged_event_moves_no_earlier_consumer():
    told = shown(
        [
            *paid_order("order-2"),
            entry("order-2", "inventory", "reserve_inventory", "nudged", SagaState.PENDING, "OrderCreated",
                  "InventoryReserved", position=None),
        ]
    )  # fmt: skip

    timeline = merge(by_service(told).values())

    assert timeline.index(told[3]) > timeline.index(told[0])
    assert timeline.index(told[1]) > timeline.index(told[0])
    assert len(timeline) == len(told)


def test_contradictory_logs_are_merged_completely():
    told = shown(
        [
            entry("order-9", "inventory", "reserve_inventory", "completed", SagaState.PENDING, "Chicken", "Egg"),
            entry("order-9", "payment", "process_payment", "completed", SagaState.PENDING, "Egg", "Chicken"),
        ]
    )

    timeline = merge(by_service(told).values())

    assert _names(timeline) == _names(told)


@pytest.mark.parametrize(
    ("entries", "state"),
    [
        (fulfilled_order(), SagaState.COMPLETED),
        (fulfilled_order()[:5], SagaState.COMPLETED),
        (refused_order(), SagaState.FAILED),
        (refused_order()[:5], SagaState.COMPENSATING),
        (paid_order(), SagaState.PENDING),
        (paid_order()[:1], SagaState.STARTED),
        ([], None),
    ],
)
def test_the_state_is_what_all_services_together_know(entries, state):
    logs = by_service(shown(entries))

    timeline = tell("order-1", logs)

    assert timeline.state is state


def test_last_move_ignores_notes_of_the_end():
    timeline = Timeline("order-1", shown(fulfilled_order()))

    move = timeline.last_move

    assert move is not None
    assert move.step == "send_confirmation"
    assert move.to_state == "completed"


def test_unknown_saga_keeps_its_id_and_gaps():
    timeline = tell("order-404", {"payment": []}, unreachable={"shipping": "no answer"})

    assert timeline.as_dict() == {
        "saga_id": "order-404",
        "saga_type": None,
        "state": None,
        "entries": [],
        "unreachable": {"shipping": "no answer"},
    }


def _names(entries):
    return [(each.service, each.step, each.to_state) for each in entries]
