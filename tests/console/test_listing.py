"""The console lists each saga once, as all services together see it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from toolkit.console.saga_listing import _is_meant, _merged
from toolkit.operations.search import Search

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def told(step: str, *, moved: int, at: int, state: str = "Completed", kind: str = "order") -> dict[str, Any]:
    return {
        "saga_id": "order-1", "saga_type": kind, "state": state, "step": step, "started_at": NOON,
        "moved_at": NOON + timedelta(seconds=moved), "at": NOON + timedelta(seconds=at), "attention": [],
    }  # fmt: skip


def test_the_last_step_is_that_of_the_service_that_moved_last_not_of_who_heard_of_the_end_last():
    of_payment = told("process_payment", moved=2, at=9)
    of_notification = told("send_confirmation", moved=5, at=5)

    (row,) = _merged([of_payment, of_notification])

    assert (row["step"], row["moved_at"]) == ("send_confirmation", NOON + timedelta(seconds=5))
    assert row["at"] == NOON + timedelta(seconds=9)


def test_a_saga_of_which_another_service_s_step_moved_last_is_not_meant_by_this_step():
    (row,) = _merged([told("reserve_inventory", moved=1, at=1), told("process_payment", moved=2, at=2)])

    assert _is_meant(row, Search(step="process_payment"))
    assert not _is_meant(row, Search(step="reserve_inventory"))


def test_two_types_under_one_id_are_listed_apart():
    rows = _merged([told("reserve_inventory", moved=1, at=1), told("wrap", moved=2, at=2, kind="gift", state="Failed")])

    assert [(row["saga_type"], row["state"]) for row in rows] == [("gift", "Failed"), ("order", "Completed")]
