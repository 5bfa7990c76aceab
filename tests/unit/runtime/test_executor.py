"""One transaction holds the step's rows, its log entry and the event that it emits."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.loan_rows import dead_letters_of, lent, log_of, notes, rows_left, states
from tests.example_sagas.loans import NOON, BookLent, BookWanted, Clerk, LoanRegistered, library, loan_saga
from tests.unit.runtime.loan_requests import WANTED
from toolkit import Event, Participant
from toolkit.errors import ContentionError, PositionTakenError
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock


async def test_effect_entry_and_event_are_committed_together(branch: Branch, database: Database) -> None:
    await branch.take(WANTED)

    (entry,) = await log_of(database, "loan-1")
    assert (entry.to_state, entry.saga_state, entry.emitted_type) == ("completed", "Started", "BookLent")
    assert await lent(database) == ["loan-1"]
    assert await rows_left(database) == ["loan-1"]
    assert [(each.message_id, each.type) for each in branch.publisher.taken] == [(entry.emitted_id, "BookLent")]


async def test_an_emitted_event_carries_cause_and_deadline(branch: Branch, database: Database) -> None:
    deadline = NOON + timedelta(hours=1)
    await branch.executor.execute(
        [message_of(WANTED, at=NOON, deadline=deadline, traceparent="00-ab-cd-01", attempt=3)]
    )

    await branch.relay.drain()

    headers = branch.publisher.taken[0].headers
    assert headers["causation-id"] == message_of(WANTED).envelope.event_id
    assert headers["deadline"] == deadline.isoformat()
    assert headers["traceparent"] == "00-ab-cd-01"
    assert "attempt" not in headers  # the first needs no saying


async def test_nothing_is_sent_of_a_transaction_that_fails(branch: Branch, database: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await branch.take(BookWanted(loan_id="loan-1", shelf=77))

    assert branch.publisher.taken == []
    assert await states(database, "loan-1") == []


async def test_a_duplicate_in_the_same_batch_changes_nothing(branch: Branch, database: Database) -> None:
    await branch.take(WANTED, WANTED, WANTED)

    assert await lent(database) == ["loan-1"]
    assert [each.to_state for each in await log_of(database, "loan-1")] == ["completed"]


async def test_an_unreadable_message_leaves_its_batch_alone(branch: Branch, database: Database) -> None:
    poison = Unreadable(WireMessage(b"{", "reader.BookWanted"), "not JSON", "a brace is missing")

    await branch.executor.execute([message_of(WANTED, at=NOON), poison])

    assert await states(database, "loan-1") == ["completed"]
    assert [(each.reason, each.error) for each in await dead_letters_of(database)] == [
        ("not JSON", "a brace is missing")
    ]


async def test_two_participants_of_a_service_both_act(database: Database, clerk: Clerk, clock: ManualClock) -> None:
    reminders = Participant("reminders", saga=loan_saga)

    @reminders.step()
    async def write_reminder(event: BookWanted) -> LoanRegistered:
        return LoanRegistered(loan_id=event.loan_id)

    lending = library(clerk)
    both = replace(lending, participants=[*lending.participants, reminders])
    branch = Branch(both, database, resources={Clerk: clerk}, clock=clock)

    await branch.take(WANTED)
    await branch.take(WANTED)

    entries = [entry for entry in await log_of(database, "loan-1") if entry.position]
    assert [(entry.step, entry.to_state) for entry in entries] == [
        ("lend_book", "completed"),
        ("write_reminder", "completed"),
    ]
    assert {"BookLent", "LoanRegistered"} <= {message.type for message in branch.publisher.taken}


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
    await asyncio.gather(*(replica.take(WANTED) for replica in replicas))

    assert await lent(postgres) == ["loan-1"]
    assert sum(len(replica.publisher.taken) for replica in replicas) == 1


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
    batch = [message_of(WANTED, at=NOON), message_of(BookLent(loan_id="loan-1"))]

    for _ in range(2):
        await branch.executor.execute(batch, commit_error=RuntimeError("the commit failed"))

    assert await states(database, "loan-1") == ["failed"]
    assert "RuntimeError: the commit failed" in (await log_of(database, "loan-1"))[-1].error
