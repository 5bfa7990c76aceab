"""A batch runs without savepoints first; a step that fails or refuses in it leaves no rows behind."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import states
from tests.example_sagas.loans import BookWanted, LoanRefused
from tests.unit.runtime.copies import (
    Act,
    Copy,
    Counter,
    Slip,
    lend_a_copy,
    lent,
    open_copies_branch,
    slips,
    statements,
    wanted,
)
from toolkit import Event
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import is_contention

#: The error of PostgreSQL for a transaction that it ends in favour of another one.
CONTEND = """
CREATE FUNCTION contend() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'another one was faster' USING ERRCODE = 'serialization_failure'; END $$
"""


async def test_a_successful_batch_takes_no_savepoint(
    copies_branch: Branch, database: Database, counter: Counter
) -> None:
    with statements(database) as executed:
        await copies_branch.take(*wanted(1, 2, 3))

    assert await slips(database) == ["loan-1", "loan-2", "loan-3"]
    assert counter.calls == ["loan-1", "loan-2", "loan-3"]
    assert not [each for each in executed if "SAVEPOINT" in each]
    assert len([each for each in executed if each.startswith("INSERT INTO slip")]) == 1


async def test_a_refusal_without_writes_causes_no_fallback(
    copies_branch: Branch, database: Database, counter: Counter
) -> None:
    async def look_and_refuse(event: BookWanted, session: AsyncSession) -> Event:
        await session.get_one(Copy, "copy-1")
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    counter.acts["loan-1"] = look_and_refuse
    await copies_branch.take(*wanted(1, 2, 3))

    assert counter.calls == ["loan-1", "loan-2", "loan-3"]
    assert await states(database, "loan-1") == ["failed"]


async def add_a_row(event: BookWanted, session: AsyncSession) -> None:
    session.add(Slip(loan_id=f"half of {event.loan_id}"))


async def change_a_row(_: BookWanted, session: AsyncSession) -> None:
    await lend_a_copy(_, session)


async def delete_a_row(_: BookWanted, session: AsyncSession) -> None:
    await session.delete(await session.get_one(Copy, "copy-1"))


async def write_in_sql(_: BookWanted, session: AsyncSession) -> None:
    await (await session.connection()).execute(text("UPDATE copy SET lent = 7"))


@pytest.mark.parametrize("action", [add_a_row, change_a_row, delete_a_row, write_in_sql])
async def test_writes_before_a_refusal_are_rolled_back_alone(
    copies_branch: Branch, database: Database, counter: Counter, action: Act
) -> None:
    async def write_and_refuse(event: BookWanted, session: AsyncSession) -> Event:
        await action(event, session)
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    counter.acts |= {"loan-1": lend_a_copy, "loan-2": write_and_refuse}
    await copies_branch.take(*wanted(1, 2, 3))

    assert await slips(database) == ["loan-1", "loan-3"]
    assert await lent(database) == 1
    assert await states(database, "loan-2") == ["failed"]


async def test_an_earlier_steps_row_survives_a_refusal(
    copies_branch: Branch, database: Database, counter: Counter
) -> None:
    async def refuse(event: BookWanted, _: AsyncSession) -> Event:
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    counter.acts |= {"loan-1": lend_a_copy, "loan-2": refuse}
    await copies_branch.take(*wanted(1, 2, 3))

    assert counter.calls == ["loan-1", "loan-2", "loan-3"]
    assert await lent(database) == 1
    assert await slips(database) == ["loan-1", "loan-3"]


async def test_a_row_refused_at_flush_fails_alone(copies_branch: Branch, database: Database, counter: Counter) -> None:
    async def take_anothers_slip(_: BookWanted, session: AsyncSession) -> None:
        session.add(Slip(loan_id="loan-1"))

    counter.acts["loan-2"] = take_anothers_slip
    async with copies_branch.open():
        await asyncio.gather(*(copies_branch.batcher.deliver(wire(each)) for each in wanted(1, 2, 3)))

    assert await slips(database) == ["loan-1", "loan-3"]
    assert await states(database, "loan-2") == ["failed"]


async def test_a_step_alone_runs_once_for_a_refused_row(
    copies_branch: Branch, database: Database, counter: Counter
) -> None:
    await copies_branch.take(*wanted(1))

    async def take_anothers_slip(_: BookWanted, session: AsyncSession) -> None:
        session.add(Slip(loan_id="loan-1"))

    counter.acts["loan-2"] = take_anothers_slip
    await copies_branch.take(*wanted(2))

    assert counter.calls == ["loan-1", "loan-2"]
    assert await states(database, "loan-2") == ["failed"]


async def test_contention_at_the_flush_causes_no_fallback(postgres: Database, counter: Counter) -> None:
    branch = await open_copies_branch(postgres, counter)
    async with postgres.engine.begin() as connection:
        for statement in (CONTEND, "CREATE TRIGGER contend BEFORE INSERT ON slip EXECUTE FUNCTION contend()"):
            await connection.execute(text(statement))

    with pytest.raises(DBAPIError) as caught:
        await branch.take(*wanted(1, 2, 3))

    assert is_contention(caught.value)
    assert counter.calls == ["loan-1", "loan-2", "loan-3"]
