"""The fence decides whether a message runs, compensates, fences or defers a step."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import insert, text
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.loan_rows import dead_letters_of, lent, log_of, states
from tests.example_sagas.loans import NOON, BookWanted, CardRefused, Clerk, LoanRefused, library
from tests.unit.runtime.loan_requests import CARD_REFUSED, WANTED, abort
from toolkit import Event
from toolkit.declaration.events import AbortRequested
from toolkit.persistence import pruning_watermark
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock


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
        [message_of(AbortRequested(saga_type="loan", saga_id="loan-2", reason="the reader left"), saga_id="loan-2")]
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

    await branch.executor.execute([message_of(other, saga_id="loan-1", saga_type="order")])

    assert await log_of(database, "loan-1") == []


async def test_an_event_of_another_type_runs_no_step(branch: Branch, clerk: Clerk, database: Database) -> None:
    foreign = [message_of(event, saga_type="order") for event in (WANTED, CARD_REFUSED)]

    await branch.executor.execute(foreign)

    assert clerk.calls == []
    assert await log_of(database, "loan-1") == []


@pytest.mark.parametrize("trigger", ["compensation", "abort"])
async def test_a_message_is_deferred_during_a_call(
    database: Database, clerk: Clerk, clock: ManualClock, trigger: str
) -> None:
    outside = Branch(library(clerk, external=True), database, resources={Clerk: clerk}, clock=clock)
    await outside.take(WANTED)

    await (outside.take(CARD_REFUSED) if trigger == "compensation" else abort(outside))

    assert await states(database, "loan-1") == ["executing"]
    async with database.reading() as connection:
        rows = (await connection.execute(text("SELECT destination, event_type FROM saga_outbox"))).all()
    assert [tuple(row) for row in rows] == [
        ("saga.library", "CardRefused" if trigger == "compensation" else "AbortRequested")
    ]


async def test_an_event_older_than_the_log_never_runs(branch: Branch, database: Database) -> None:
    old = NOON - timedelta(days=3)
    await branch.executor.execute([message_of(WANTED)])
    async with database.transaction() as session:
        await (await session.connection()).execute(insert(pruning_watermark.pruned).values(id=1, until=old))

    await branch.executor.execute([message_of(WANTED, at=old), message_of(BookWanted(loan_id="loan-2"), at=old)])

    assert await states(database, "loan-1") == ["completed"]
    assert await states(database, "loan-2") == []
    assert [each.reason for each in await dead_letters_of(database)] == ["older than the log"]


@pytest.mark.parametrize("event", [CardRefused(loan_id="loan-1", reason="card\0expired"), None])
async def test_a_reason_with_nul_is_cleaned(
    branch: Branch, clerk: Clerk, database: Database, event: Event | None
) -> None:
    async def refuse(event: BookWanted, _: AsyncSession) -> Event:
        return LoanRefused(loan_id=event.loan_id, reason="card\0expired")

    clerk.will("lend_book", refuse)
    await branch.take(event or WANTED)

    assert [each.error for each in await log_of(database, "loan-1")] == ["cardexpired"]
