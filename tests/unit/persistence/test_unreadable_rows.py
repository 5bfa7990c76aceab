"""An unreadable row is logged, counted and set aside, and stops no other saga."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of, outbox_row
from tests.example_sagas.loan_rows import add_to_outbox, dead_letters_of, notes, rows_left
from tests.example_sagas.loans import NOON, BookWanted, Clerk, library
from tests.unit.persistence.faults import change
from toolkit import Settings
from toolkit.messaging.decoding import Unreadable
from toolkit.observability import metrics
from toolkit.operations import dead_letters
from toolkit.persistence import outbox, overdue_steps
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import Selection
from toolkit.persistence.schema import UtcDateTime
from toolkit.persistence.unreadable_rows import rows_set_aside
from toolkit.runtime.pruner import prune
from toolkit.runtime.watchdog import Watchdog
from toolkit.testing import ManualClock


def counted(table: str) -> float:
    return rows_set_aside.labels("", table)._value.get()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def branch(database: Database, clerk: Clerk, clock: ManualClock) -> Branch:
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=clock)


@pytest.fixture
def watch(branch: Branch, clerk: Clerk) -> Watchdog:
    return Watchdog(library(clerk), Settings(), database=branch.database, relay=branch.relay, clock=branch.clock)


@pytest.mark.parametrize("headers", ["{broken", "[]", "null", ""])
async def test_an_unreadable_outbox_row_stops_no_other(branch: Branch, database: Database, headers: str) -> None:
    await add_to_outbox(database, *(outbox_row(f"loan-{each}", due_at=NOON) for each in range(3)))
    await change(database, f"UPDATE saga_outbox SET headers = '{headers}' WHERE saga_id = 'loan-1'")
    before = counted("saga_outbox")

    with capture_logs() as logs:
        await branch.relay._due.claim()
        await branch.relay._due.claim()
        await branch.relay.drain()

    assert sorted(branch.publisher.saga_ids()) == ["loan-0", "loan-2"]
    assert await rows_left(database) == ["loan-1"]
    assert counted("saga_outbox") == before + 1
    (line,) = [each for each in logs if each["log_level"] == "error"]
    assert (line["event"], line["table"], line["saga_id"]) == (
        "row can't be read and is set aside",
        "saga_outbox",
        "loan-1",
    )
    assert line["cure"].startswith("repair the row of saga_outbox")
    async with database.reading() as connection:
        assert [each.attempt for each in await outbox.listed(connection)] == [None]


async def test_a_repaired_outbox_row_leaves_a_day_later(branch: Branch, database: Database, clock: ManualClock) -> None:
    await add_to_outbox(database, outbox_row("loan-1", due_at=NOON))
    await change(database, "UPDATE saga_outbox SET headers = ''")
    await branch.relay._due.claim()

    await change(database, "UPDATE saga_outbox SET headers = '{}'")
    clock.advance(timedelta(days=1, seconds=1))
    await branch.relay._due.claim()
    await branch.relay.drain()

    assert branch.publisher.saga_ids() == ["loan-1"]


BROKEN_LOG = {
    "an unknown state": "UPDATE saga_log SET to_state = 'lent' WHERE saga_id = 'loan-1'",
    "an unknown saga state": "UPDATE saga_log SET saga_state = 'Lent' WHERE saga_id = 'loan-1'",
    "an invalid id": "UPDATE saga_log SET saga_id = 'loan/1 %' WHERE saga_id = 'loan-1'",
    "an invalid body": "UPDATE saga_log SET emitted_body = '{broken' WHERE saga_id = 'loan-1'",
    "no body": "UPDATE saga_log SET emitted_body = NULL WHERE saga_id = 'loan-1'",
    "no saga type": "UPDATE saga_log SET saga_type = '' WHERE saga_id = 'loan-1'",
    "an unknown event": "UPDATE saga_log SET emitted_type = 'BookGiven' WHERE saga_id = 'loan-1'",
}


async def overdue_loans(branch: Branch, clock: ManualClock) -> None:
    """Take three loans whose sagas should have ended two hours ago."""
    await branch.take(*(BookWanted(loan_id=f"loan-{each}") for each in range(3)))
    await branch.relay.drain()
    branch.publisher.taken.clear()
    clock.advance(timedelta(hours=2))


@pytest.mark.parametrize("fault", BROKEN_LOG)
async def test_an_unreadable_log_entry_stops_no_nudge(
    branch: Branch, watch: Watchdog, database: Database, clock: ManualClock, fault: str
) -> None:
    await overdue_loans(branch, clock)
    await change(database, BROKEN_LOG[fault])

    await watch.sweep()
    await branch.relay.drain()

    for loan in ("loan-0", "loan-2"):
        assert await notes(database, loan) == ["overdue", "nudged", "aborted"]
        assert [each.type for each in branch.publisher.taken if each.correlation_id == loan].count("BookLent") == 1


@pytest.mark.parametrize("fault", BROKEN_LOG)
async def test_an_entry_broken_later_stops_no_nudge(
    branch: Branch, watch: Watchdog, database: Database, clock: ManualClock, fault: str
) -> None:
    await overdue_loans(branch, clock)
    await watch.sweep()
    await change(database, BROKEN_LOG[fault])

    clock.advance(timedelta(minutes=2))
    await watch.sweep()

    for loan in ("loan-0", "loan-2"):
        assert (await notes(database, loan)).count("nudged") == 2


@pytest.mark.parametrize(
    "broken",
    [
        "UPDATE saga_log SET emitted_body = '{broken' WHERE saga_id = 'loan-1'",
        "UPDATE saga_log SET emitted_body = '[]' WHERE saga_id = 'loan-1'",
        "UPDATE saga_log SET saga_id = 'ORD/2024/001' WHERE saga_id = 'loan-1'",
    ],
)
async def test_an_invalid_event_rests_for_a_day(
    branch: Branch, watch: Watchdog, database: Database, clock: ManualClock, broken: str
) -> None:
    await overdue_loans(branch, clock)
    await change(database, broken)

    await watch.sweep()
    await branch.relay.drain()

    nudged = [each.correlation_id for each in branch.publisher.taken if each.type == "BookLent"]
    assert sorted(nudged) == ["loan-0", "loan-2"]
    async with database.reading() as connection:
        rest = "SELECT saga_id, next_at FROM saga_overdue ORDER BY next_at"
        rows = (await connection.execute(text(rest).columns(next_at=UtcDateTime()))).all()
    assert rows[-1].saga_id not in nudged
    assert rows[-1].next_at >= clock.now() + timedelta(hours=23)


@pytest.mark.parametrize(
    "broken",
    [
        "UPDATE saga_overdue SET state = 'lent' WHERE saga_id = 'loan-1'",
        "UPDATE saga_overdue SET saga_state = 'Lent' WHERE saga_id = 'loan-1'",
        "UPDATE saga_overdue SET saga_id = '' WHERE saga_id = 'loan-1'",
    ],
)
async def test_an_unreadable_overdue_row_stops_no_nudge(
    branch: Branch, watch: Watchdog, database: Database, clock: ManualClock, broken: str
) -> None:
    await overdue_loans(branch, clock)
    await watch.sweep()
    await change(database, broken)

    clock.advance(timedelta(minutes=2))
    await watch.sweep()
    clock.advance(timedelta(minutes=2))
    with capture_logs() as logs:
        await watch.sweep()

    for loan in ("loan-0", "loan-2"):
        assert (await notes(database, loan)).count("nudged") == 3
    assert [each for each in logs if each["log_level"] == "error"] == []  # it rests for a day
    async with database.reading() as connection:
        assert {each.saga_id for each in await overdue_steps.listed(connection)} >= {"loan-0", "loan-2"}


async def test_metrics_leave_out_an_unreadable_row(
    branch: Branch, watch: Watchdog, database: Database, clock: ManualClock, clerk: Clerk
) -> None:
    async def ready() -> dict[str, bool]:
        return {}

    await overdue_loans(branch, clock)
    await watch.sweep()
    await change(database, "UPDATE saga_overdue SET saga_state = 'Lent' WHERE saga_id = 'loan-1'")

    page = (await metrics.page(library(clerk), database, ready)).decode()

    assert 'saga_overdue_steps{service="library"} 3.0' in page
    assert 'saga_stuck{saga_type="loan",service="library",state="Started"} 2.0' in page


async def test_an_unreadable_row_is_pruned_with_others(branch: Branch, database: Database) -> None:
    await branch.take(*(BookWanted(loan_id=f"loan-{each}") for each in range(3)))
    await change(
        database,
        "UPDATE saga_log SET saga_state = 'Completed'",
        "UPDATE saga_log SET to_state = 'lent', saga_id = 'loan/1 %', emitted_body = '{' WHERE saga_id = 'loan-1'",
    )

    pruned = await prune(database, older_than=timedelta(days=1), now=NOON + timedelta(days=2))

    assert pruned.sagas == 3


async def test_unreadable_headers_do_not_stop_a_redrive(branch: Branch, database: Database) -> None:
    messages = [message_of(BookWanted(loan_id=f"loan-{each}"), at=NOON).on_attempt(1) for each in range(3)]
    await branch.executor.execute([Unreadable(each, "schema", "no loan") for each in messages])
    await change(
        database, "UPDATE saga_dead_letters SET headers = '{broken', step = 'lend_book' WHERE saga_id = 'loan-1'"
    )
    by = Operator(name="ada", reason="repaired")

    assert [each.headers for each in await dead_letters_of(database) if each.saga_id == "loan-1"] == [{}]
    batch = await dead_letters.redrive(database, Selection(), by, queue="saga.library", now=NOON)

    assert [row.outcome for row in batch.rows] == ["redriven"] * 3
    assert await rows_left(database) == ["loan-0", "loan-1", "loan-2"]
