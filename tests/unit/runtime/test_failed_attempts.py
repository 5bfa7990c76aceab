"""A failed attempt is retried until its retries or its time are spent; a refusal or a dead letter follows."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.loan_rows import dead_letters_of, log_of, notes, states
from tests.example_sagas.loans import NOON, BookWanted, Clerk, library
from tests.unit.runtime.loan_requests import CARD_REFUSED, WANTED, abort, fails
from toolkit import Retry
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock


async def test_a_failed_attempt_returns_to_its_own_queue(
    branch: Branch, clerk: Clerk, database: Database, clock: ManualClock
) -> None:
    clerk.will("lend_book", fails(ConnectionError("catalogue away")))
    await branch.take(WANTED)

    async with database.reading() as connection:
        row = (await connection.execute(text("SELECT destination, event_type, headers FROM saga_outbox"))).one()
    assert (row.destination, row.event_type) == ("saga.library", "BookWanted")
    assert '"attempt": 2' in row.headers
    assert branch.publisher.taken == []
    assert await notes(database, "loan-1") == ["retrying"]


async def test_the_log_counts_attempts_not_the_message(branch: Branch, clerk: Clerk, database: Database) -> None:
    clerk.will("lend_book", *[fails(ConnectionError("catalogue away"))] * 2)

    await branch.take(WANTED)
    await branch.take(WANTED)

    assert await states(database, "loan-1") == ["failed"]
    assert "retries spent after 2 attempts" in (await log_of(database, "loan-1"))[-1].error


async def test_a_steps_error_holds_no_sensitive_value(branch: Branch, clerk: Clerk, database: Database) -> None:
    wanted = BookWanted(loan_id="loan-1", card="card-4711")
    clerk.will("lend_book", *[fails(ConnectionError("no account for card-4711\0"))] * 2)

    await branch.take(wanted)
    await branch.take(wanted)

    errors = [each.error for each in await log_of(database, "loan-1")]
    assert len(errors) == 2
    assert all("no account for ***" in error and "4711" not in error for error in errors)


async def test_a_step_without_refusal_ends_as_dead_letter(database: Database, clerk: Clerk, clock: ManualClock) -> None:
    surely = Branch(library(clerk, refusable=False), database, resources={Clerk: clerk}, clock=clock)
    clerk.will("lend_book", *[fails(ConnectionError("catalogue away"))] * 2)

    await surely.take(WANTED)
    await surely.take(WANTED)

    (dead,) = await dead_letters_of(database)
    assert (dead.step, dead.attempts, dead.reason) == ("lend_surely", 2, "retries spent")
    assert "ConnectionError: catalogue away" in dead.traceback
    assert await states(database, "loan-1") == []


async def test_no_deadline_or_abort_forces_a_refusal(database: Database, clerk: Clerk, clock: ManualClock) -> None:
    surely = Branch(library(clerk, refusable=False), database, resources={Clerk: clerk}, clock=clock)

    await abort(surely)
    await surely.executor.execute([message_of(WANTED, at=NOON - timedelta(days=1), deadline=NOON)])

    assert await states(database, "loan-1") == ["completed"]


async def test_a_step_may_choose_its_retry_time(
    branch: Branch, clerk: Clerk, database: Database, clock: ManualClock
) -> None:
    clerk.will("lend_book", fails(Retry("the shelf is being moved", after=timedelta(seconds=7))))

    await branch.take(WANTED)

    async with database.transaction() as session:
        due = await (await session.connection()).scalar(text("SELECT due_at FROM saga_outbox"))
    assert str(clock.now() + timedelta(seconds=7))[:19] in str(due)


@pytest.mark.parametrize(("late_by", "state"), [(-1, "completed"), (0, "failed"), (1, "failed")])
async def test_a_step_refuses_at_and_after_its_deadline(
    branch: Branch, clerk: Clerk, database: Database, late_by: int, state: str
) -> None:
    occurred_at = NOON - timedelta(minutes=1, seconds=late_by)

    await branch.executor.execute([message_of(WANTED, at=occurred_at)])

    assert await states(database, "loan-1") == [state]
    assert len(clerk.calls) == (state == "completed")


async def test_the_settings_timeout_overrides_the_declared_one(
    branch: Branch, clerk: Clerk, database: Database
) -> None:
    branch.executor.failures._timeouts["lend_book"] = timedelta(seconds=5)

    await branch.executor.execute([message_of(WANTED, at=NOON - timedelta(seconds=5))])

    assert await states(database, "loan-1") == ["failed"]


async def test_a_failing_compensation_becomes_a_dead_letter(branch: Branch, clerk: Clerk, database: Database) -> None:
    await branch.take(WANTED)
    clerk.will("take_back", *[fails(ConnectionError("catalogue away"))] * 2)

    await branch.take(CARD_REFUSED)
    await branch.take(CARD_REFUSED)

    assert await states(database, "loan-1") == ["completed"]
    assert await notes(database, "loan-1") == ["retrying", "dead_lettered"]
    assert [each.step for each in await dead_letters_of(database)] == ["lend_book"]
