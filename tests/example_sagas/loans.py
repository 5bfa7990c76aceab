"""A saga for tests: a library lends books, and the test can plan each call of its steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, MetaData, String, Table, insert, update
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit import Event, IdempotencyKey, Participant, Refusal, RetryPolicy, Saga, SagaId, Sensitive, Service, Settings
from toolkit.persistence.database import Database

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


class BookWanted(Event, owner="reader"):
    loan_id: SagaId
    shelf: int = 1
    card: Annotated[str, Sensitive] = ""


class BookLent(Event, owner="library"):
    loan_id: SagaId
    shelf: int = 1


class LoanRefused(Refusal, owner="library"):
    loan_id: SagaId


class BookTakenBack(Event, owner="library", optional=True):
    loan_id: SagaId
    reason: str = ""


class CardRefused(Refusal, owner="desk"):
    loan_id: SagaId


class LoanRegistered(Event, owner="desk", optional=True):
    loan_id: SagaId


class LoanFailed(Event, owner="desk", optional=True):
    loan_id: SagaId


loan_saga = Saga(
    name="loan", id_field="loan_id", starts_with=BookWanted, completes_with=LoanRegistered, fails_with=LoanFailed
)

tables = MetaData()
shelves = Table(
    "shelves",
    tables,
    Column("shelf", Integer, primary_key=True),
    Column("books", Integer, CheckConstraint("books >= 0"), nullable=False),
)
#: The foreign key is checked at the commit, so that an unknown shelf fails there.
loans = Table(
    "loans",
    tables,
    Column("id", Integer, primary_key=True),
    Column("loan_id", String, nullable=False),
    Column("shelf", ForeignKey("shelves.shelf", deferrable=True, initially="DEFERRED"), nullable=False),
)

#: A test's action in a step; it returns the step's event, or None for the usual one.
Action = Callable[[Any, AsyncSession], Awaitable[Event | None]]

QUICK = RetryPolicy(attempts=2, first_delay=timedelta(milliseconds=20), jitter=0)


class Clerk:
    """Runs the test's planned actions in the library's steps, and records each call."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}
        self.calls: list[tuple[str, str]] = []

    def will(self, step: str, *actions: Action) -> None:
        """Plan actions for the next calls of a step, before its usual work."""
        self.actions.setdefault(step, []).extend(actions)

    async def act(self, step: str, event: Any, session: AsyncSession) -> Event | None:
        """Run the next planned action."""
        self.calls.append((step, event.loan_id))
        waiting = self.actions.get(step)
        return await waiting.pop(0)(event, session) if waiting else None


def library(clerk: Clerk, *, external: bool = False, refusable: bool = True, undoable: bool = True) -> Service:
    """Return the service; its step may be external, refusable and undoable."""
    participant = Participant("library", saga=loan_saga, retry=QUICK)

    async def lend_book(
        event: BookWanted, session: AsyncSession, key: IdempotencyKey, clerk: Clerk
    ) -> BookLent | LoanRefused:
        answer = await clerk.act("lend_book", event, session)
        if isinstance(answer, Refusal):
            return answer  # type: ignore[return-value]  # the test may break the declaration
        await _lend(session, event)
        return answer or BookLent(loan_id=event.loan_id, shelf=event.shelf)  # type: ignore[return-value]

    async def lend_surely(event: BookWanted, session: AsyncSession, clerk: Clerk) -> BookLent:
        await clerk.act("lend_book", event, session)
        await _lend(session, event)
        return BookLent(loan_id=event.loan_id, shelf=event.shelf)

    async def take_back(
        event: CardRefused, original: BookLent | None, session: AsyncSession, key: IdempotencyKey, clerk: Clerk
    ) -> BookTakenBack:
        await clerk.act("take_back", event, session)
        if original is not None:
            back = update(shelves).where(shelves.c.shelf == original.shelf).values(books=shelves.c.books + 1)
            await (await session.connection()).execute(back)
        return BookTakenBack(loan_id=event.loan_id, reason=event.reason)

    step = lend_book if refusable else lend_surely
    participant.step(external=external, timeout=timedelta(minutes=1))(step)
    if undoable:
        participant.compensation(of=step)(take_back)

    @asynccontextmanager
    async def the_clerk(_: Settings) -> AsyncIterator[Clerk]:
        yield clerk

    return Service(name="library", participants=[participant], tables=tables, provides={Clerk: the_clerk})


async def _lend(session: AsyncSession, event: BookWanted) -> None:
    connection = await session.connection()
    await connection.execute(insert(loans).values(loan_id=event.loan_id, shelf=event.shelf))


async def stock(database: Database) -> None:
    """Create the tables, and put a hundred books on each of two shelves."""
    await database.create_tables(tables)
    async with database.transaction() as session:
        connection = await session.connection()
        await connection.execute(insert(shelves), [{"shelf": shelf, "books": 100} for shelf in (1, 2)])
