"""The list of sagas shows each saga once, merged from all services."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from toolkit.console.saga_rows import SagaRow, merged
from toolkit.operations.search import FoundSaga, Search

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def listed(step: str, *, moved: int, at: int, state: str = "Completed", kind: str = "order") -> SagaRow:
    moved_at, latest = NOON + timedelta(seconds=moved), NOON + timedelta(seconds=at)
    row = {"saga_id": "order-1", "saga_type": kind, "state": state, "step": step, "attention": []}
    times = {"started_at": NOON, "moved_at": moved_at, "at": latest}
    return SagaRow.of("payment", FoundSaga.of(row | times))


def test_the_last_step_is_the_latest_move():
    of_payment = listed("process_payment", moved=2, at=9)
    of_notification = listed("send_confirmation", moved=5, at=5)

    (row,) = merged([of_payment, of_notification])

    assert (row.step, row.moved_at) == ("send_confirmation", NOON + timedelta(seconds=5))
    assert row.at == NOON + timedelta(seconds=9)


def test_a_step_filter_matches_the_last_step_only():
    (row,) = merged([listed("reserve_inventory", moved=1, at=1), listed("process_payment", moved=2, at=2)])

    assert row.matches(Search(step="process_payment"))
    assert not row.matches(Search(step="reserve_inventory"))


def test_two_types_under_one_id_are_listed_apart():
    rows = merged(
        [listed("reserve_inventory", moved=1, at=1), listed("wrap", moved=2, at=2, kind="gift", state="Failed")]
    )

    assert [(row.saga_type, row.state) for row in rows] == [("gift", "Failed"), ("order", "Completed")]
