"""A batch is executed in good faith first, without savepoints; a step that disappoints leaves nothing behind either."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import MetaData, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.unit.loans import BookLent, BookWanted, Branch, LoanRefused, loan_saga, states, wire
from toolkit import Event, Participant, RetryPolicy, Service
from toolkit.database import Database, only_reads
from toolkit.database_errors import is_contention

tables = MetaData()
#: What PostgreSQL says where a transaction is ended for another one's sake.
CONTEND = """
CREATE FUNCTION contend() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'another one was faster' USING ERRCODE = 'serialization_failure'; END $$
"""
Act = Callable[[BookWanted, AsyncSession], Awaitable[Event | None]]


class Base(SQLModel, registry=registry(metadata=tables)):
    """The branch's own tables."""


class Copy(Base, table=True):
    number: str = Field(primary_key=True)
    lent: int = 0


class Slip(Base, table=True):
    loan_id: str = Field(primary_key=True)


class Counter:
    """What the steps of a test do, by loan, and how often they were called."""

    def __init__(self) -> None:
        self.acts: dict[str, Act] = {}
        self.calls: list[str] = []


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
async def branch(database: Database, counter: Counter) -> Branch:
    return await open_branch(database, counter)


async def open_branch(database: Database, counter: Counter) -> Branch:
    participant = Participant("library", saga=loan_saga, retry=RetryPolicy(attempts=1))

    async def lend_book(event: BookWanted, session: AsyncSession) -> BookLent | LoanRefused:
        counter.calls.append(event.loan_id)
        if event.loan_id in counter.acts and (answer := await counter.acts[event.loan_id](event, session)):
            return answer  # type: ignore[return-value]
        session.add(Slip(loan_id=event.loan_id))
        return BookLent(loan_id=event.loan_id)

    participant.step()(lend_book)
    await database.create_tables(tables)
    async with database.transaction() as session:
        session.add(Copy(number="copy-1"))
    return Branch(Service(name="library", participants=[participant], tables=tables), database, resources={})


async def slips(database: Database) -> list[str]:
    async with database.reading() as connection:
        return list((await connection.execute(text("SELECT loan_id FROM slip ORDER BY loan_id"))).scalars())


async def lent(database: Database) -> int:
    async with database.reading() as connection:
        return int(await connection.scalar(text("SELECT lent FROM copy")) or 0)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Note what is executed meanwhile."""
    said: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        said.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield said
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)


def wanted(*numbers: int) -> list[BookWanted]:
    return [BookWanted(loan_id=f"loan-{number}") for number in numbers]


async def lend_a_copy(_: BookWanted, session: AsyncSession) -> None:
    (await session.get_one(Copy, "copy-1")).lent += 1


async def test_a_batch_whose_steps_succeed_takes_no_savepoints_and_one_insert(
    branch: Branch, database: Database, counter: Counter
) -> None:
    with statements(database) as said:
        await branch.take(*wanted(1, 2, 3))

    assert await slips(database) == ["loan-1", "loan-2", "loan-3"]
    assert counter.calls == ["loan-1", "loan-2", "loan-3"]
    assert not [each for each in said if "SAVEPOINT" in each]
    assert len([each for each in said if each.startswith("INSERT INTO slip")]) == 1


async def test_a_step_that_refuses_and_wrote_nothing_disappoints_nobody(
    branch: Branch, database: Database, counter: Counter
) -> None:
    async def look_and_refuse(event: BookWanted, session: AsyncSession) -> Event:
        await session.get_one(Copy, "copy-1")
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    counter.acts["loan-1"] = look_and_refuse
    await branch.take(*wanted(1, 2, 3))

    assert counter.calls == ["loan-1", "loan-2", "loan-3"]
    assert await states(database, "loan-1") == ["failed"]


async def add_a_row(event: BookWanted, session: AsyncSession) -> None:
    session.add(Slip(loan_id=f"half of {event.loan_id}"))


async def change_a_row(_: BookWanted, session: AsyncSession) -> None:
    await lend_a_copy(_, session)


async def delete_a_row(_: BookWanted, session: AsyncSession) -> None:
    await session.delete(await session.get_one(Copy, "copy-1"))


async def say_it_in_sql(_: BookWanted, session: AsyncSession) -> None:
    await (await session.connection()).execute(text("UPDATE copy SET lent = 7"))


@pytest.mark.parametrize("deed", [add_a_row, change_a_row, delete_a_row, say_it_in_sql])
async def test_what_a_step_wrote_before_it_refused_is_undone_and_its_neighbours_stay(
    branch: Branch, database: Database, counter: Counter, deed: Act
) -> None:
    async def write_and_refuse(event: BookWanted, session: AsyncSession) -> Event:
        await deed(event, session)
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    counter.acts |= {"loan-1": lend_a_copy, "loan-2": write_and_refuse}
    await branch.take(*wanted(1, 2, 3))

    assert await slips(database) == ["loan-1", "loan-3"]
    assert await lent(database) == 1
    assert await states(database, "loan-2") == ["failed"]


async def test_a_row_that_an_earlier_step_left_to_be_written_is_not_taken_for_the_refusing_ones(
    branch: Branch, database: Database, counter: Counter
) -> None:
    async def refuse(event: BookWanted, _: AsyncSession) -> Event:
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    counter.acts |= {"loan-1": lend_a_copy, "loan-2": refuse}
    await branch.take(*wanted(1, 2, 3))

    assert counter.calls == ["loan-1", "loan-2", "loan-3"]
    assert await lent(database) == 1
    assert await slips(database) == ["loan-1", "loan-3"]


async def test_a_row_that_the_database_refuses_in_the_end_is_its_steps_failure_alone(
    branch: Branch, database: Database, counter: Counter
) -> None:
    async def take_anothers_slip(_: BookWanted, session: AsyncSession) -> None:
        session.add(Slip(loan_id="loan-1"))

    counter.acts["loan-2"] = take_anothers_slip
    async with branch.open():
        await asyncio.gather(*(branch.inbox.deliver(wire(each)) for each in wanted(1, 2, 3)))

    assert await slips(database) == ["loan-1", "loan-3"]
    assert await states(database, "loan-2") == ["failed"]


async def test_another_transaction_in_the_way_of_the_last_flush_is_no_disappointment(
    postgres: Database, counter: Counter
) -> None:
    branch = await open_branch(postgres, counter)
    async with postgres.engine.begin() as connection:
        for statement in (CONTEND, "CREATE TRIGGER contend BEFORE INSERT ON slip EXECUTE FUNCTION contend()"):
            await connection.execute(text(statement))

    with pytest.raises(DBAPIError) as caught:
        await branch.take(*wanted(1, 2, 3))

    assert is_contention(caught.value)
    assert counter.calls == ["loan-1", "loan-2", "loan-3"]


@pytest.mark.parametrize(
    ("statement", "is_harmless"),
    [
        ("SELECT copy.number FROM copy WHERE copy.number = ?", True),
        ("select count(*), coalesce(sum(lent), 0) FROM copy", True),
        ("SELECT number FROM copy WHERE lent IN (1, 2) AND (lent > 0)", True),
        ("SELECT lend_all('copy-1')", False),
        ("SELECT nextval('numbers')", False),
        ("INSERT INTO copy VALUES (1)", False),
        ("UPDATE copy SET lent = 1", False),
        ("WITH gone AS (DELETE FROM copy RETURNING *) SELECT * FROM gone", False),
    ],
)
def test_only_what_surely_writes_nothing_counts_as_reading(statement: str, is_harmless: bool) -> None:
    assert only_reads(statement) is is_harmless
