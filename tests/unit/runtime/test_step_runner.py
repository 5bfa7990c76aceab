"""A step that refuses, or breaks its declaration, leaves no rows behind and disturbs no other step."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import lent, log_of, states
from tests.example_sagas.loans import Action, BookLent, BookTakenBack, BookWanted, Clerk, LoanRefused
from tests.unit.runtime.loan_requests import WANTED
from toolkit import Event
from toolkit.persistence.database import Database


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


async def commit_in_sql(_: Event, session: AsyncSession) -> None:
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
    ("action", "text_of_error"),
    [
        (commit, "StepError: a step never commits"),
        (roll_back, "StepError: a step never rolls back"),
        (commit_beneath, "StepError: a step never commits"),
        (roll_back_beneath, "StepError: a step never rolls back"),
        (close, "StepError: a step never closes"),
        (reset, "StepError: a step never resets"),
        (invalidate, "StepError: a step never invalidates"),
        (commit_in_sql, "StepError: a step never commits"),
        (return_something_undeclared, "StepError: lend_book returned a BookTakenBack"),
        (return_another_saga, "StepError: the BookLent belongs to the saga 'loan-2', but answers an event of 'loan-1'"),
        (refuse_another_saga, "StepError: the LoanRefused belongs to the saga 'loan-2'"),
        (return_what_bypassed_its_rules, "StepError: the BookLent can't be read from its own JSON (shelf: int_"),
        (refuse_at_length, "StepError: the LoanRefused changes when it is read from its own JSON (reason)"),
        (write_what_the_database_refuses, "IntegrityError"),
    ],
)
async def test_a_step_against_its_declaration_is_refused_alone(
    branch: Branch, clerk: Clerk, database: Database, action: Action, text_of_error: str
) -> None:
    async def break_the_rules_for_loan_1(event: Event, session: AsyncSession) -> Event | None:
        return await action(event, session) if event == WANTED else None

    clerk.will("lend_book", *[break_the_rules_for_loan_1] * 6)
    await branch.take(BookWanted(loan_id="loan-0"), WANTED, BookWanted(loan_id="loan-2"))
    await branch.take(WANTED)

    assert await lent(database) == ["loan-0", "loan-2"]
    assert await states(database, "loan-1") == ["failed"]
    assert text_of_error in (await log_of(database, "loan-1"))[-1].error
