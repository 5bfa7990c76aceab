"""A library lends books: one service whose steps do what the test says, and the toolkit's parts around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, MetaData, String, Table, insert, text, update
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit import Event, IdempotencyKey, Participant, Refusal, RetryPolicy, Saga, SagaId, Sensitive, Service, Settings
from toolkit.clock import Clock, SystemClock
from toolkit.ids import derived_id
from toolkit.messaging.decoding import Decoder
from toolkit.messaging.envelope import Envelope, Message, WireMessage
from toolkit.observability.tracing import Tracing
from toolkit.persistence import dead_letter_queries, outbox, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.persistence.outbox import OutboxRow
from toolkit.protocol.log_entry import LogEntry
from toolkit.runtime.batcher import Batcher
from toolkit.runtime.executor import Executor
from toolkit.runtime.external_calls import ExternalCalls
from toolkit.runtime.invocation import Invocation
from toolkit.runtime.relay import Relay
from toolkit.runtime.unit_of_work import ExternalCall

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


loan_saga = Saga(
    name="loan", id_field="loan_id", starts_with=BookWanted, completes_with=LoanRegistered, fails_with=BookTakenBack
)

tables = MetaData()
shelves = Table(
    "shelves",
    tables,
    Column("shelf", Integer, primary_key=True),
    Column("books", Integer, CheckConstraint("books >= 0"), nullable=False),
)
#: The shelf is looked up only at the commit, so that a wrong one fails there.
loans = Table(
    "loans",
    tables,
    Column("id", Integer, primary_key=True),
    Column("loan_id", String, nullable=False),
    Column("shelf", ForeignKey("shelves.shelf", deferrable=True, initially="DEFERRED"), nullable=False),
)

#: What a test has a step do; it returns another event than the usual one, or None.
Deed = Callable[[Any, AsyncSession], Awaitable[Event | None]]

QUICK = RetryPolicy(attempts=2, first_delay=timedelta(milliseconds=20), jitter=0)


class Clerk:
    """Does the library's work: lends, unless the test gives it something else to do; and remembers each call."""

    def __init__(self) -> None:
        self.deeds: dict[str, list[Deed]] = {}
        self.calls: list[tuple[str, str]] = []

    def will(self, step: str, *deeds: Deed) -> None:
        """Have the next calls of a step do this before they do what they always do."""
        self.deeds.setdefault(step, []).extend(deeds)

    async def act(self, step: str, event: Any, session: AsyncSession) -> Event | None:
        """Do what the test planned next."""
        self.calls.append((step, event.loan_id))
        waiting = self.deeds.get(step)
        return await waiting.pop(0)(event, session) if waiting else None


def library(clerk: Clerk, *, external: bool = False, refusable: bool = True, undoable: bool = True) -> Service:
    """Return the service; the variants differ in what the toolkit has to see to."""
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
    """Make the tables, and put a hundred books on each of two shelves."""
    await database.create_tables(tables)
    async with database.transaction() as session:
        connection = await session.connection()
        await connection.execute(insert(shelves), [{"shelf": shelf, "books": 100} for shelf in (1, 2)])


class HandClock:
    """A clock that the test sets."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def now(self) -> datetime:
        """Return the moment that the test set."""
        return self.at

    def advance(self, **by: float) -> None:
        """Let time pass."""
        self.at += timedelta(**by)


class Post:
    """A way out that keeps what it takes; the test says what happens to the next messages."""

    def __init__(self) -> None:
        self.taken: list[WireMessage] = []
        self.destinations: list[str | None] = []
        self._fates: list[Callable[[WireMessage], Awaitable[None]]] = []

    def will(self, *fates: Callable[[WireMessage], Awaitable[None]]) -> None:
        """Have this happen to the next messages, in this order; the others are confirmed at once."""
        self._fates.extend(fates)

    async def publish(self, message: WireMessage, *, destination: str | None) -> None:
        """Take the message; returning is the confirm."""
        self.taken.append(message)
        self.destinations.append(destination)
        if self._fates:
            await self._fates.pop(0)(message)

    def saga_ids(self) -> list[str | None]:
        """Return whose messages were taken, in their order."""
        return [message.correlation_id for message in self.taken]


class Branch:
    """One replica of a service: its execution, its isolation, its inbox and its relay, on a given database."""

    def __init__(
        self, service: Service, database: Database, *, resources: dict[type, Any], clock: Clock | None = None,
        batch_size: int = 50, window: int = 500, tracing: Tracing | None = None,
    ) -> None:  # fmt: skip
        self.clock = clock or SystemClock()
        self.post = Post()
        self.database = database
        self.relay = Relay(
            database,
            self.post,
            service="library",
            clock=self.clock,
            window=window,
            lease=timedelta(seconds=5),
            poll=timedelta(milliseconds=20),
            tracing=tracing,
        )
        self.executor = Executor(
            service,
            queue=f"saga.{service.name}",
            database=database,
            invocation=Invocation(resources, middleware=service.middleware),
            relay=self.relay,
            clock=self.clock,
            timeouts={},
            tracing=tracing,
        )
        self.external_calls = ExternalCalls(self.executor, concurrency=8, batch_size=batch_size)
        decoder = Decoder(service.consumed(), service.sagas, max_body=100_000)
        self.batcher = Batcher(self.executor, self.external_calls, decoder, clock=self.clock, batch_size=batch_size)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Have the inbox take deliveries meanwhile."""
        running = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def take(self, *events: Event) -> list[ExternalCall]:
        """Execute these events as one batch, and return the outside calls that follow."""
        calls = await self.executor.execute([letter(event, at=self.clock.now()) for event in events])
        return [call for of_one in calls for call in of_one]

    async def handle(self, event: Event) -> None:
        """Execute an event alone, and make its outside calls."""
        for call in await self.take(event):
            await self.external_calls.run(call)


def envelope(event: Event, *, at: datetime | None = None, **facts: Any) -> Envelope:
    """Return an event's envelope."""
    loan_id = str(getattr(event, "loan_id", ""))
    kind = type(event).__name__
    known: dict[str, Any] = {
        "event_id": derived_id("loan", loan_id, kind),
        "event_type": kind,
        "version": event.__version__,
        "saga_id": loan_id,
        "saga_type": "loan",
        "occurred_at": at or datetime.now(UTC),
    }
    return Envelope(**(known | facts))


def letter(event: Event, *, at: datetime | None = None, **facts: Any) -> Message:
    """Return an event as a service has received it."""
    return Message(envelope(event, at=at, **facts), event, event.model_dump_json().encode())


def wire(event: Event, *, at: datetime | None = None, **facts: Any) -> WireMessage:
    """Return an event as it comes over the wire."""
    return envelope(event, at=at, **facts).carry(event)


def outgoing(loan_id: str, *, due_at: datetime, **facts: Any) -> OutboxRow:
    """Return a row of the outbox: this loan's book was lent."""
    event = BookLent(loan_id=loan_id)
    return OutboxRow(id=f"row of {loan_id}", message=wire(event, at=NOON), due_at=due_at, **facts)


async def put_out(database: Database, *rows: OutboxRow) -> None:
    """Commit rows to the outbox."""
    async with database.transaction() as session:
        await outbox.add(await session.connection(), rows)


async def rows_left(database: Database) -> list[str]:
    """Return whose rows are still in the outbox."""
    async with database.reading() as connection:
        return list((await connection.execute(text("SELECT saga_id FROM outbox ORDER BY saga_id"))).scalars())


async def log_of(database: Database, loan_id: str) -> list[LogEntry]:
    """Return a saga's log."""
    async with database.reading() as connection:
        return await saga_log_queries.entries(connection, saga_id=loan_id)


async def states(database: Database, loan_id: str) -> list[str]:
    """Return the states that the saga's steps went through."""
    return [entry.to_state for entry in await log_of(database, loan_id) if entry.position]


async def notes(database: Database, loan_id: str) -> list[str]:
    """Return the notes on a saga."""
    return [entry.to_state for entry in await log_of(database, loan_id) if not entry.position]


async def lent(database: Database) -> list[str]:
    """Return whose loans the steps wrote: one line for each time."""
    async with database.reading() as connection:
        return list((await connection.execute(text("SELECT loan_id FROM loans ORDER BY loan_id"))).scalars())


async def letters(database: Database) -> list[dict[str, Any]]:
    """Return the dead letters."""
    async with database.reading() as connection:
        return await dead_letter_queries.listed(connection)


async def rename(database: Database, old: str, new: str) -> None:
    """Take a table away, or give it back: the quickest outage."""
    async with database.engine.begin() as connection:
        await connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


async def cut_off_everybody_else(database: Database) -> None:
    """Have PostgreSQL end all other connections to this database."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    async with database.engine.connect() as connection:
        await connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
