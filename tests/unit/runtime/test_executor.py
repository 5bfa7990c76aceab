"""One transaction holds it all: what the step wrote, its entry in the log, and what goes out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import letter
from tests.example_sagas.loan_rows import lent, letters, log_of, notes, rows_left, states
from tests.example_sagas.loans import (
    NOON,
    Action,
    BookLent,
    BookTakenBack,
    BookWanted,
    CardRefused,
    Clerk,
    LoanRefused,
    LoanRegistered,
    library,
    loan_saga,
)
from toolkit import Event, Participant, Retry, Service
from toolkit.declaration.events import AbortRequested, SagaEnded
from toolkit.errors import ContentionError, PositionTakenError
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import pruning_watermark
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

WANTED = BookWanted(loan_id="loan-1")
CARD_REFUSED = CardRefused(loan_id="loan-1", reason="card expired")
ABORT = AbortRequested(saga_type="loan", saga_id="loan-1", reason="the reader left")


@pytest.fixture
def watch() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def branch(database: Database, clerk: Clerk, watch: ManualClock) -> Branch:
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=watch)


def fails(error: Exception) -> Action:
    async def action(_: Event, __: AsyncSession) -> None:
        raise error

    return action


async def abort(branch: Branch) -> None:
    await branch.executor.execute([letter(ABORT, saga_id="loan-1")])


async def test_effect_entry_and_event_are_committed_together(branch: Branch, database: Database) -> None:
    await branch.take(WANTED)

    (entry,) = await log_of(database, "loan-1")
    assert (entry.to_state, entry.saga_state, entry.emitted_type) == ("completed", "Started", "BookLent")
    assert await lent(database) == ["loan-1"]
    assert await rows_left(database) == ["loan-1"]
    assert [(each.message_id, each.type) for each in branch.post.taken] == [(entry.emitted_id, "BookLent")]


async def test_an_emitted_event_carries_cause_and_deadline(branch: Branch, database: Database) -> None:
    deadline = NOON + timedelta(hours=1)
    await branch.executor.execute([letter(WANTED, at=NOON, deadline=deadline, traceparent="00-ab-cd-01", attempt=3)])

    await branch.relay.drain()

    headers = branch.post.taken[0].headers
    assert headers["causation-id"] == letter(WANTED).envelope.event_id
    assert headers["deadline"] == deadline.isoformat()
    assert headers["traceparent"] == "00-ab-cd-01"
    assert headers["attempt"] == 1


async def test_nothing_is_sent_of_a_transaction_that_fails(branch: Branch, database: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await branch.take(BookWanted(loan_id="loan-1", shelf=77))

    assert branch.post.taken == []
    assert await states(database, "loan-1") == []


async def test_a_refusal_rolls_back_the_steps_rows(branch: Branch, clerk: Clerk, database: Database) -> None:
    async def refuse(event: BookWanted, session: AsyncSession) -> Event:
        await (await session.connection()).execute(text("UPDATE shelves SET books = 0"))
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    clerk.will("lend_book", refuse)
    await branch.take(WANTED)

    (entry,) = await log_of(database, "loan-1")
    assert (entry.to_state, entry.saga_state, entry.error) == ("failed", "Compensating", "lent out")
    async with database.reading() as connection:
        assert await connection.scalar(text("SELECT min(books) FROM shelves")) == 100


async def commit(_: Event, session: AsyncSession) -> None:
    await session.commit()


async def roll_back(_: Event, session: AsyncSession) -> None:
    await session.rollback()


async def commit_beneath(_: Event, session: AsyncSession) -> None:
    await session.run_sync(lambda beneath: beneath.commit())


async def roll_back_beneath(_: Event, session: AsyncSession) -> None:
    await session.run_sync(lambda beneath: beneath.rollback())


async def close(_: Event, session: AsyncSession) -> None:
    async with session:
        pass


async def reset(_: Event, session: AsyncSession) -> None:
    await session.reset()


async def invalidate(_: Event, session: AsyncSession) -> None:
    await session.invalidate()


async def say_commit(_: Event, session: AsyncSession) -> None:
    await (await session.connection()).execute(text("commit"))


async def return_something_undeclared(event: BookWanted, _: AsyncSession) -> Event:
    return BookTakenBack(loan_id=event.loan_id)


async def return_another_saga(event: BookWanted, _: AsyncSession) -> Event:
    return BookLent(loan_id="loan-2")


async def refuse_another_saga(event: BookWanted, _: AsyncSession) -> Event:
    return LoanRefused(loan_id="loan-2", reason="lent out")


async def return_what_bypassed_its_rules(event: BookWanted, _: AsyncSession) -> Event:
    return BookLent(loan_id=event.loan_id).model_copy(update={"shelf": "the third"})


async def refuse_at_length(event: BookWanted, _: AsyncSession) -> Event:
    return LoanRefused.model_construct(loan_id=event.loan_id, reason="lent out" * 100_000)


async def write_what_the_database_refuses(_: Event, session: AsyncSession) -> None:
    await (await session.connection()).execute(text("UPDATE shelves SET books = -1"))


@pytest.mark.parametrize(
    ("action", "word"),
    [
        (commit, "StepError: a step never commits"),
        (roll_back, "StepError: a step never rolls back"),
        (commit_beneath, "StepError: a step never commits"),
        (roll_back_beneath, "StepError: a step never rolls back"),
        (close, "StepError: a step never closes"),
        (reset, "StepError: a step never resets"),
        (invalidate, "StepError: a step never invalidates"),
        (say_commit, "StepError: a step never commits"),
        (return_something_undeclared, "StepError: lend_book returned a BookTakenBack"),
        (return_another_saga, "StepError: the BookLent belongs to the saga 'loan-2', but answers an event of 'loan-1'"),
        (refuse_another_saga, "StepError: the LoanRefused belongs to the saga 'loan-2'"),
        (return_what_bypassed_its_rules, "StepError: the BookLent can't be read from its own JSON (shelf: int_"),
        (refuse_at_length, "StepError: the LoanRefused changes when it is read from its own JSON (reason)"),
        (write_what_the_database_refuses, "IntegrityError"),
    ],
)
async def test_a_step_against_its_declaration_is_refused_alone(
    branch: Branch, clerk: Clerk, database: Database, action: Action, word: str
) -> None:
    async def break_the_rules_for_loan_1(event: Event, session: AsyncSession) -> Event | None:
        return await action(event, session) if event == WANTED else None

    clerk.will("lend_book", *[break_the_rules_for_loan_1] * 6)
    await branch.take(BookWanted(loan_id="loan-0"), WANTED, BookWanted(loan_id="loan-2"))
    await branch.take(WANTED)

    assert await lent(database) == ["loan-0", "loan-2"]
    assert await states(database, "loan-1") == ["failed"]
    assert word in (await log_of(database, "loan-1"))[-1].error


async def test_a_failed_attempt_returns_to_its_own_queue(
    branch: Branch, clerk: Clerk, database: Database, watch: ManualClock
) -> None:
    clerk.will("lend_book", fails(ConnectionError("catalogue away")))
    await branch.take(WANTED)

    async with database.reading() as connection:
        row = (await connection.execute(text("SELECT destination, event_type, headers FROM outbox"))).one()
    assert (row.destination, row.event_type) == ("saga.library", "BookWanted")
    assert '"attempt": 2' in row.headers
    assert branch.post.taken == []
    assert await notes(database, "loan-1") == ["retrying"]


async def test_the_log_counts_attempts_not_the_message(branch: Branch, clerk: Clerk, database: Database) -> None:
    clerk.will("lend_book", *[fails(ConnectionError("catalogue away"))] * 2)

    await branch.take(WANTED)
    await branch.take(WANTED)

    assert await states(database, "loan-1") == ["failed"]
    assert "retries spent after 2 attempts" in (await log_of(database, "loan-1"))[-1].error


async def test_a_steps_error_holds_no_sensitive_value(branch: Branch, clerk: Clerk, database: Database) -> None:
    wanted = BookWanted(loan_id="loan-1", card="card-4711")
    clerk.will("lend_book", *[fails(ConnectionError("nobody has card-4711\0"))] * 2)

    await branch.take(wanted)
    await branch.take(wanted)

    errors = [each.error for each in await log_of(database, "loan-1")]
    assert len(errors) == 2
    assert all("nobody has ***" in error and "4711" not in error for error in errors)


async def test_a_step_without_refusal_ends_as_dead_letter(database: Database, clerk: Clerk, watch: ManualClock) -> None:
    surely = Branch(library(clerk, refusable=False), database, resources={Clerk: clerk}, clock=watch)
    clerk.will("lend_book", *[fails(ConnectionError("catalogue away"))] * 2)

    await surely.take(WANTED)
    await surely.take(WANTED)

    (dead,) = await letters(database)
    assert (dead["step"], dead["attempts"], dead["reason"]) == ("lend_surely", 2, "retries spent")
    assert "ConnectionError: catalogue away" in dead["traceback"]
    assert await states(database, "loan-1") == []


async def test_no_deadline_or_abort_forces_a_refusal(database: Database, clerk: Clerk, watch: ManualClock) -> None:
    surely = Branch(library(clerk, refusable=False), database, resources={Clerk: clerk}, clock=watch)

    await abort(surely)
    await surely.executor.execute([letter(WANTED, at=NOON - timedelta(days=1), deadline=NOON)])

    assert await states(database, "loan-1") == ["completed"]


async def test_a_step_may_choose_its_retry_time(
    branch: Branch, clerk: Clerk, database: Database, watch: ManualClock
) -> None:
    clerk.will("lend_book", fails(Retry("the shelf is being moved", after=timedelta(seconds=7))))

    await branch.take(WANTED)

    async with database.transaction() as session:
        due = await (await session.connection()).scalar(text("SELECT due_at FROM outbox"))
    assert str(watch.now() + timedelta(seconds=7))[:19] in str(due)


@pytest.mark.parametrize(("late_by", "state"), [(-1, "completed"), (0, "failed"), (1, "failed")])
async def test_a_step_refuses_at_and_after_its_deadline(
    branch: Branch, clerk: Clerk, database: Database, late_by: int, state: str
) -> None:
    occurred_at = NOON - timedelta(minutes=1, seconds=late_by)

    await branch.executor.execute([letter(WANTED, at=occurred_at)])

    assert await states(database, "loan-1") == [state]
    assert len(clerk.calls) == (state == "completed")


async def test_the_settings_timeout_overrides_the_declared_one(
    branch: Branch, clerk: Clerk, database: Database
) -> None:
    branch.executor.failures._timeouts["lend_book"] = timedelta(seconds=5)

    await branch.executor.execute([letter(WANTED, at=NOON - timedelta(seconds=5))])

    assert await states(database, "loan-1") == ["failed"]


async def test_a_duplicate_in_the_same_batch_changes_nothing(branch: Branch, database: Database) -> None:
    await branch.take(WANTED, WANTED, WANTED)

    assert await lent(database) == ["loan-1"]
    assert [each.to_state for each in await log_of(database, "loan-1")] == ["completed"]


async def test_a_compensation_receives_its_steps_event(branch: Branch, database: Database) -> None:
    await branch.take(BookWanted(loan_id="loan-1", shelf=2))

    await branch.take(CARD_REFUSED)

    async with database.reading() as connection:
        books = (await connection.execute(text("SELECT books FROM shelves ORDER BY shelf"))).scalars().all()
    assert await states(database, "loan-1") == ["completed", "compensated"]
    assert books == [100, 101]


async def test_a_compensation_undoes_its_step_within_a_batch(branch: Branch, database: Database) -> None:
    await branch.take(WANTED, CARD_REFUSED, CARD_REFUSED)

    assert await states(database, "loan-1") == ["completed", "compensated"]


async def test_compensations_and_aborts_fence_unrun_steps(branch: Branch, database: Database) -> None:
    await branch.take(CARD_REFUSED, WANTED)
    await branch.executor.execute(
        [letter(AbortRequested(saga_type="loan", saga_id="loan-2", reason="the reader left"), saga_id="loan-2")]
    )
    await branch.take(BookWanted(loan_id="loan-2"))
    await branch.relay.drain()

    one, late, *_ = await log_of(database, "loan-1")
    two = (await log_of(database, "loan-2"))[0]
    assert (one.to_state, one.emitted_type, one.error) == ("fenced", "BookTakenBack", "card expired")
    assert (late.to_state, late.error) == ("ignored", "BookWanted came too late")
    assert (two.to_state, two.emitted_type, two.error) == ("fenced", "LoanRefused", "the reader left")
    assert await lent(database) == []


async def test_an_abort_leaves_what_is_done_alone(branch: Branch, database: Database) -> None:
    await branch.take(WANTED)

    await abort(branch)

    assert [each.to_state for each in await log_of(database, "loan-1")] == ["completed"]


async def test_an_abort_of_another_type_fences_nothing(branch: Branch, database: Database) -> None:
    other = AbortRequested(saga_type="order", saga_id="loan-1", reason="the reader left")

    await branch.executor.execute([letter(other, saga_id="loan-1", saga_type="order")])

    assert await log_of(database, "loan-1") == []


async def test_an_event_of_another_type_runs_no_step(branch: Branch, clerk: Clerk, database: Database) -> None:
    foreign = [letter(event, saga_type="order") for event in (WANTED, CARD_REFUSED)]

    await branch.executor.execute(foreign)

    assert clerk.calls == []
    assert await log_of(database, "loan-1") == []


@pytest.mark.parametrize("word", ["way back", "abort"])
async def test_a_message_is_deferred_during_a_call(
    database: Database, clerk: Clerk, watch: ManualClock, word: str
) -> None:
    outside = Branch(library(clerk, external=True), database, resources={Clerk: clerk}, clock=watch)
    await outside.take(WANTED)

    await (outside.take(CARD_REFUSED) if word == "way back" else abort(outside))

    assert await states(database, "loan-1") == ["executing"]
    async with database.reading() as connection:
        rows = (await connection.execute(text("SELECT destination, event_type FROM outbox"))).all()
    assert [tuple(row) for row in rows] == [("saga.library", "CardRefused" if word == "way back" else "AbortRequested")]


async def test_a_failing_compensation_becomes_a_dead_letter(branch: Branch, clerk: Clerk, database: Database) -> None:
    await branch.take(WANTED)
    clerk.will("take_back", *[fails(ConnectionError("catalogue away"))] * 2)

    await branch.take(CARD_REFUSED)
    await branch.take(CARD_REFUSED)

    assert await states(database, "loan-1") == ["completed"]
    assert await notes(database, "loan-1") == ["retrying", "dead_lettered"]
    assert [each["step"] for each in await letters(database)] == ["lend_book"]


async def test_a_batch_announces_its_ends_in_one_message(database: Database, clerk: Clerk) -> None:
    desk = Participant("desk", saga=loan_saga)

    @desk.step()
    async def register_loan(event: BookLent) -> LoanRegistered:
        return LoanRegistered(loan_id=event.loan_id)

    @desk.step()
    async def write_off(event: LoanRefused) -> BookTakenBack:
        return BookTakenBack(loan_id=event.loan_id)

    one = Branch(Service(name="desk", participants=[desk]), database, resources={})
    await one.take(
        BookLent(loan_id="loan-1"), LoanRefused(loan_id="loan-2", reason="lent out"), BookLent(loan_id="loan-3")
    )
    await one.relay.drain()

    ended = [SagaEnded.model_validate_json(each.body) for each in one.post.taken if each.type == "SagaEnded"]
    assert ended == [SagaEnded(saga_type="loan", completed=("loan-1", "loan-3"), failed=("loan-2",))]
    assert [entry.saga_state for entry in await log_of(database, "loan-2")] == ["Failed"]


async def test_a_received_end_confirms_completed_steps(branch: Branch, database: Database) -> None:
    ended = SagaEnded(saga_type="loan", completed=("loan-1", "loan-2"))
    await branch.take(WANTED, BookWanted(loan_id="loan-2"))

    await branch.executor.execute([letter(ended)])

    assert await states(database, "loan-1") == await states(database, "loan-2") == ["completed", "confirmed"]


async def test_an_event_older_than_the_log_never_runs(branch: Branch, database: Database) -> None:
    old = NOON - timedelta(days=3)
    await branch.executor.execute([letter(WANTED)])
    async with database.transaction() as session:
        await (await session.connection()).execute(insert(pruning_watermark.pruned).values(id=1, until=old))

    await branch.executor.execute([letter(WANTED, at=old), letter(BookWanted(loan_id="loan-2"), at=old)])

    assert await states(database, "loan-1") == ["completed"]
    assert await states(database, "loan-2") == []
    assert [each["reason"] for each in await letters(database)] == ["older than the log"]


async def test_an_unreadable_message_leaves_its_batch_alone(branch: Branch, database: Database) -> None:
    poison = Unreadable(WireMessage(b"{", "reader.BookWanted"), "not JSON", "a brace is missing")

    await branch.executor.execute([letter(WANTED, at=NOON), poison])

    assert await states(database, "loan-1") == ["completed"]
    assert [(each["reason"], each["error"]) for each in await letters(database)] == [("not JSON", "a brace is missing")]


@pytest.mark.parametrize("event", [CardRefused(loan_id="loan-1", reason="card\0expired"), None])
async def test_a_reason_with_nul_is_cleaned(
    branch: Branch, clerk: Clerk, database: Database, event: Event | None
) -> None:
    async def refuse(event: BookWanted, _: AsyncSession) -> Event:
        return LoanRefused(loan_id=event.loan_id, reason="card\0expired")

    clerk.will("lend_book", refuse)
    await branch.take(event or WANTED)

    assert [each.error for each in await log_of(database, "loan-1")] == ["cardexpired"]


async def test_two_participants_of_a_service_both_act(database: Database, clerk: Clerk, watch: ManualClock) -> None:
    reminders = Participant("reminders", saga=loan_saga)

    @reminders.step()
    async def write_reminder(event: BookWanted) -> LoanRegistered:
        return LoanRegistered(loan_id=event.loan_id)

    lending = library(clerk)
    both = replace(lending, participants=[*lending.participants, reminders])
    branch = Branch(both, database, resources={Clerk: clerk}, clock=watch)

    await branch.take(WANTED)
    await branch.take(WANTED)

    entries = [entry for entry in await log_of(database, "loan-1") if entry.position]
    assert [(entry.step, entry.to_state) for entry in entries] == [
        ("lend_book", "completed"),
        ("write_reminder", "completed"),
    ]
    assert {"BookLent", "LoanRegistered"} <= {message.type for message in branch.post.taken}


async def test_a_step_done_elsewhere_has_not_failed(postgres: Database, clerk: Clerk) -> None:
    async with postgres.engine.begin() as connection:
        await connection.execute(text("CREATE UNIQUE INDEX one_book_a_loan ON loans (loan_id)"))
    one, other = (Branch(library(clerk), postgres, resources={Clerk: clerk}) for _ in range(2))

    async def succeed(*_: Any) -> None: ...

    async def fail(*_: Any) -> None:
        raise RuntimeError("the batch is executed again, each step in a savepoint")

    async def be_slow(*_: Any) -> None:
        await other.take(WANTED)

    clerk.will("lend_book", succeed, fail, be_slow)
    with pytest.raises(PositionTakenError):
        await one.take(WANTED, BookWanted(loan_id="loan-2"))

    assert await lent(postgres) == ["loan-1"]
    assert await states(postgres, "loan-1") == ["completed"]
    assert await notes(postgres, "loan-1") == []


async def test_two_replicas_at_once_have_one_effect(postgres: Database, clerk: Clerk) -> None:
    replicas = [Branch(library(clerk), postgres, resources={Clerk: clerk}) for _ in range(2)]
    both_run = asyncio.Barrier(2)

    async def together(_: Event, __: AsyncSession) -> None:
        await both_run.wait()

    clerk.will("lend_book", together, together)
    outcomes = await asyncio.gather(*(replica.take(WANTED) for replica in replicas), return_exceptions=True)

    assert sorted(type(each).__name__ for each in outcomes) == ["PositionTakenError", "list"]
    assert await lent(postgres) == ["loan-1"]
    assert sum(len(replica.post.taken) for replica in replicas) == 1
    assert issubclass(PositionTakenError, ContentionError)


async def test_a_serialization_failure_costs_no_attempt(postgres: Database, clerk: Clerk) -> None:
    one = Branch(library(clerk), postgres, resources={Clerk: clerk})

    async def meet_another(_: Event, session: AsyncSession) -> None:
        await (await session.connection()).execute(
            text("DO $$ BEGIN RAISE EXCEPTION 'met another' USING ERRCODE = '40001'; END $$")
        )

    clerk.will("lend_book", meet_another)
    with pytest.raises(ContentionError):
        await one.take(WANTED)

    assert await log_of(postgres, "loan-1") == []


async def test_repeated_commit_failures_give_the_step_up(branch: Branch, database: Database) -> None:
    batch = [letter(WANTED, at=NOON), letter(BookLent(loan_id="loan-1"))]

    for _ in range(2):
        await branch.executor.execute(batch, failed=RuntimeError("the commit failed"))

    assert await states(database, "loan-1") == ["failed"]
    assert "RuntimeError: the commit failed" in (await log_of(database, "loan-1"))[-1].error
