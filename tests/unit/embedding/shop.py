"""A team's web shop: its own rows, its own engines, and a service without steps that sends what it starts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Annotated

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, registry
from sqlmodel import Field, SQLModel

from tests.example_sagas.library_branch import RecordingPublisher
from toolkit import Event, Participant, Saga, SagaId, Sensitive, Service, Settings
from toolkit.clock import SystemClock
from toolkit.persistence.database import Database
from toolkit.runtime.service_runtime import ServiceRuntime

Sessions = async_sessionmaker[AsyncSession]

#: A poll that no test waits for: what is sent meanwhile, a commit has announced.
NEVER = timedelta(minutes=1)
#: SQLAlchemy's drivers, by database.
_ASYNC = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_SYNC = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


class Base(SQLModel, registry=registry()):
    """The shop's own tables."""


class Order(Base, table=True):
    """A row of the shop's own."""

    __tablename__ = "orders"

    id: str = Field(primary_key=True)
    paid: bool = False


class OrderPlaced(Event, owner="shop"):
    order_id: SagaId
    note: Annotated[str, Sensitive] = ""


class OrderShipped(Event, owner="warehouse", optional=True):
    order_id: SagaId


class OrderLost(Event, owner="warehouse", optional=True):
    order_id: SagaId


order_saga = Saga(
    name="order", id_field="order_id", starts_with=OrderPlaced, completes_with=OrderShipped, fails_with=OrderLost
)


def shop() -> Service:
    """Return a service that takes part in no saga."""
    return Service(name="shop", starts=[order_saga], tables=Base.metadata)


def warehouse(packing: Callable[[], Awaitable[None]] | None = None) -> Service:
    """Return the service that ships orders; a test may watch it pack."""
    participant = Participant("warehouse", saga=order_saga)

    @participant.step()
    async def ship(event: OrderPlaced) -> OrderShipped:
        if packing:
            await packing()
        return OrderShipped(order_id=event.order_id)

    return Service(name="warehouse", participants=[participant])


async def orders_in(database: Database) -> list[str]:
    """Return the ids of the shop's committed rows."""
    async with database.reading() as connection:
        return sorted((await connection.exec_driver_sql("SELECT id FROM orders")).scalars())


@asynccontextmanager
async def running(
    service: Service,
    database: Database,
    publisher: RecordingPublisher,
    *,
    poll: timedelta = NEVER,
    schema: str | None = None,
) -> AsyncIterator[ServiceRuntime]:
    """Run a service on the database; its messages go to the publisher."""
    settings = Settings(database_url=database.url, relay_poll=poll, database_schema=schema)
    runtime = ServiceRuntime(service, settings, publisher, clock=SystemClock())
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.drain(within=5)
        await runtime.stop()


@asynccontextmanager
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    """Open the shop's own asynchronous engine on the database."""
    url = make_url(database.url)
    engine = create_async_engine(url.set(drivername=_ASYNC[url.get_backend_name()]))
    _begin_with_the_write_lock(engine.sync_engine)
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


@contextmanager
def sync_session(database: Database) -> Iterator[Session]:
    """Open a session on the shop's own synchronous engine on the database."""
    url = make_url(database.url)
    engine = create_engine(url.set(drivername=_SYNC[url.get_backend_name()]))
    _begin_with_the_write_lock(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


def _begin_with_the_write_lock(engine: Engine) -> None:
    """Let SQLite's transactions wait for one another, as SQLAlchemy's documentation shows."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
