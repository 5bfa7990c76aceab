"""A branch that lends copies by ORM rows, and the statements that its batches execute."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import MetaData, event, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loans import BookLent, BookWanted, LoanRefused, loan_saga
from toolkit import Event, Participant, RetryPolicy, Service
from toolkit.persistence.database import Database

tables = MetaData()
Act = Callable[[BookWanted, AsyncSession], Awaitable[Event | None]]


class Base(SQLModel, registry=registry(metadata=tables)):
    """The branch's own tables."""


class Copy(Base, table=True):
    """A copy of a book."""

    number: str = Field(primary_key=True)
    lent: int = 0


class Slip(Base, table=True):
    """The slip of a loan."""

    loan_id: str = Field(primary_key=True)


class Counter:
    """The actions of a test's steps, by loan, and the calls of the steps."""

    def __init__(self) -> None:
        self.acts: dict[str, Act] = {}
        self.calls: list[str] = []


async def open_copies_branch(database: Database, counter: Counter, **facts: Any) -> Branch:
    """Create the tables, and return a branch whose steps run the counter's actions."""
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
    service = Service(name="library", participants=[participant], tables=tables)
    return Branch(service, database, resources={}, **facts)


async def slips(database: Database) -> list[str]:
    """Return the ids of the loans that have a slip."""
    async with database.reading() as connection:
        return list((await connection.execute(text("SELECT loan_id FROM slip ORDER BY loan_id"))).scalars())


async def lent(database: Database) -> int:
    """Return how often the copy was lent."""
    async with database.reading() as connection:
        return int(await connection.scalar(text("SELECT lent FROM copy")) or 0)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Record the statements that are executed inside the block."""
    executed: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        executed.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield executed
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)


def wanted(*numbers: int) -> list[BookWanted]:
    """Return requests for loans."""
    return [BookWanted(loan_id=f"loan-{number}") for number in numbers]


async def lend_a_copy(_: BookWanted, session: AsyncSession) -> None:
    """Count a loan of the copy."""
    (await session.get_one(Copy, "copy-1")).lent += 1
