"""One service's database, SQLite or PostgreSQL: durable commits, and one writer at a time where there can be only one.

A step's session can do everything but end its transaction: that belongs to the toolkit.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, MetaData, Table, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect, ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.compiler import Compiled
from sqlalchemy.types import TypeDecorator
from sqlalchemy.util import await_only
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit import failpoints
from toolkit.errors import DatabaseUnavailableError, SettingsError, StepError
from toolkit.persistence.database_errors import describe_fault
from toolkit.persistence.driver_errors import take_values_out
from toolkit.persistence.postgres import postgres_engine
from toolkit.persistence.sqlite_files import make_private, make_room_for
from toolkit.urls import shown_url

#: The toolkit's own tables; every service's database has them beside its own.
metadata = MetaData()

#: How long SQLite waits for another process's write lock before it says that it is busy.
_BUSY_TIMEOUT_MS = 10_000
#: One key for all services: tables are made one service at a time, and seldom.
_TABLES_LOCK = 7_241_530_011


#: What would end a transaction if a step said it in SQL; a savepoint may be rolled back to.
_ENDS_A_TRANSACTION = re.compile(r"\s*(COMMIT|END|ABORT|ROLLBACK(?!\s+TO))\b", re.IGNORECASE)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, in UTC on both databases; SQLite itself keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Bring a value from elsewhere to UTC, since SQLite drops the zone."""
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give a value from SQLite its zone back."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class _SyncStepSession(Session):
    """The session beneath a step's: it too refuses, since `run_sync` and `sync_session` lead here."""

    is_lent = False
    has_connection = False
    is_busy = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.executed: list[Compiled | None] = []

    def connection(self, *arguments: Any, **options: Any) -> Connection:
        """Return the connection; what is done with the driver's own beneath it shows nowhere."""
        self.executed.append(None)
        return super().connection(*arguments, **options)

    def commit(self) -> None:
        """Refuse, while a step has it: a commit would part the step's effect from its log entry and its event."""
        self.refuse_commit()
        super().commit()

    def rollback(self) -> None:
        """Refuse, while a step has it: what other steps of the same transaction wrote would be lost."""
        self.refuse_if_lent("rolls back", "return a refusal or raise, and what it wrote is undone")
        super().rollback()

    def close(self) -> None:
        """Refuse, while a step has it: what was written would be lost, and the step taken for done."""
        self.refuse_if_lent("closes its session", "the toolkit does")
        super().close()

    def reset(self) -> None:
        """Refuse as `close` does."""
        self.refuse_if_lent("resets its session", "the toolkit does")
        super().reset()

    def invalidate(self) -> None:
        """Refuse as `close` does."""
        self.refuse_if_lent("invalidates its session", "raise, and the attempt is made again")
        super().invalidate()

    def refuse_commit(self) -> None:
        """Raise a StepError while a step has the session."""
        self.refuse_if_lent("commits", "return the event, and the toolkit commits all of it together")

    def refuse_if_lent(self, deed: str, cure: str) -> None:
        """Raise a StepError while a step has the session."""
        if self.is_lent:
            raise StepError(f"a step never {deed}: {cure}")


class StepSession(AsyncSession):
    """What a step works with: an ordinary SQLModel session that can't end the transaction it is in."""

    sync_session_class = _SyncStepSession
    sync_session: _SyncStepSession

    #: The events whose outcome the transaction holds; only a failpoint asks.
    tells: Iterable[str | None] = ()

    @property
    def has_connection(self) -> bool:
        """Whether it has spoken to its database; new rows may wait in it before."""
        return self.sync_session.has_connection

    @property
    def is_busy(self) -> bool:
        """Whether a statement of it is under way: a task cancelled within one on SQLite leaves the write lock taken."""
        return self.sync_session.is_busy

    @property
    def executed(self) -> list[Compiled | None]:
        """The statements that it has executed, None for what SQLAlchemy has not compiled; clear it before."""
        return self.sync_session.executed

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Leave the session to somebody who can't end its transaction."""
        before, self.sync_session.is_lent = self.sync_session.is_lent, True
        try:
            yield
        finally:
            self.sync_session.is_lent = before

    async def commit(self) -> None:
        """Commit, unless a step has the session."""
        await failpoints.amid("commit-sent", super().commit(), self.tells)


@event.listens_for(_SyncStepSession, "after_begin")
def _know_its_session(session: _SyncStepSession, _: Any, connection: Connection) -> None:
    session.has_connection = True
    connection.info["session"] = weakref.ref(session)


def _refuse_ends_while_lent(engine: AsyncEngine) -> None:
    """Refuse what would end the transaction past the session: by its connection, or in SQL."""

    def session_of(connection: Connection) -> _SyncStepSession | None:
        known = connection.info.get("session")
        return known() if known else None

    def refuse_commit(connection: Connection) -> None:
        try:
            if session := session_of(connection):
                session.refuse_commit()
        except StepError:
            # SQLAlchemy takes a commit that raises for an end all the same: the next user would commit what is open.
            connection.invalidate()
            raise

    def judge_statement(connection: Connection, _: Any, statement: str, __: Any, context: Any, *___: Any) -> None:
        if session := session_of(connection):
            session.executed.append(getattr(context, "compiled", None))
            if _ENDS_A_TRANSACTION.match(statement):
                session.refuse_commit()
            session.is_busy = True

    def is_done(connection: Connection, *_: Any) -> None:
        if session := session_of(connection):
            session.is_busy = False

    def has_failed(context: ExceptionContext) -> None:
        if context.connection is not None:
            is_done(context.connection)

    event.listen(engine.sync_engine, "commit", refuse_commit)
    event.listen(engine.sync_engine, "before_cursor_execute", judge_statement)
    event.listen(engine.sync_engine, "after_cursor_execute", is_done)
    event.listen(engine.sync_engine, "handle_error", has_failed)


class Database:
    """Opens sessions and connections to one database, given as `sqlite:///path` or `postgresql://…`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self.engine = _sqlite_engine(url) if self.is_sqlite else postgres_engine(make_url(url))
        _refuse_ends_while_lent(self.engine)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[StepSession]:
        """Open a session, commit at the end, roll back on an exception."""
        async with self.session() as session:
            try:
                with session.lent():
                    yield session
                await session.commit()
            except BaseException:  # a cancellation, too, must not leave the transaction open
                await session.rollback()
                raise

    def session(self) -> StepSession:
        """Return a session that takes a connection at its first use, and not before."""
        return StepSession(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection that only reads, so that it waits for no writer."""
        async with self.engine.connect() as connection:
            yield await connection.execution_options(reading=True)

    async def create_tables(self, *tables: MetaData) -> None:
        """Make the toolkit's tables and these, where they are missing; replicas may do so at the same time.

        Raises:
            SettingsError: a table is there that lacks a column.
        """
        async with self.engine.begin() as connection:
            if not self.is_sqlite:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TABLES_LOCK})
            for each in (metadata, *tables):
                await connection.run_sync(each.create_all)
                await connection.run_sync(_see_that_columns_exist, each)

    async def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            DatabaseUnavailableError: it gave none within two seconds.
        """
        try:
            async with asyncio.timeout(2), self.reading() as connection:
                await connection.execute(text("SELECT 1"))
        except (DBAPIError, OSError, TimeoutError) as error:
            raise DatabaseUnavailableError(f"the database does not answer: {describe_fault(error)}") from error

    async def close(self) -> None:
        """Give all connections back."""
        await self.engine.dispose()


def insert_into(table: Table, connection: AsyncConnection) -> postgresql.Insert | sqlite.Insert:
    """Return an insert that may say what happens ON CONFLICT; both databases spell it alike, SQLAlchemy has two."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _see_that_columns_exist(connection: Connection, tables: MetaData) -> None:
    """Find a table of an older version before its first use does, in the middle of a saga."""
    for table in tables.sorted_tables:
        there = {column["name"] for column in inspect(connection).get_columns(table.name)}
        if missing := sorted(set(table.columns.keys()) - there):
            place = shown_url(connection.engine.url.render_as_string())
            raise SettingsError(
                f"the table {table.name} of {place} was made by another version: it has no "
                f"{', '.join(missing)}; add what is missing, or name another database"
            )


def _sqlite_engine(url: str) -> AsyncEngine:
    """Set SQLite up so that it loses neither updates (IMMEDIATE) nor commits at a power cut (FULL)."""
    place = make_url(url)
    make_room_for(place)
    engine = create_async_engine(place.set(drivername="sqlite+aiosqlite"), hide_parameters=True)

    event.listen(engine.sync_engine, "handle_error", take_values_out)

    @event.listens_for(engine.sync_engine, "do_connect")
    def before_connecting(*_: Any) -> None:
        make_private(place.database)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # else the driver begins transactions by itself, and too late
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        # Of several who open a new file at once one makes it WAL; the pragma waits for no lock, so the others fail.
        with suppress(sqlite3.OperationalError):
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    _one_writer_at_a_time(engine)
    return engine


def _one_writer_at_a_time(engine: AsyncEngine) -> None:
    """Begin with the write lock, and queue for it here: SQLite itself would poll, unfairly, and give up."""
    writer = asyncio.Lock()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("reading"):
            connection.exec_driver_sql("BEGIN")
            return
        await_only(writer.acquire())
        connection.info["writes"] = True
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def release(_: Any, record: Any, *__: Any) -> None:
        if record.info.pop("writes", False):
            writer.release()

    def abandon(connection: Any, *_: Any) -> None:
        # Cut off within a statement, it would be closed with the write lock in hand, until the garbage is collected.
        with suppress(ValueError, sqlite3.ProgrammingError):  # it is closed already
            driver = connection.driver_connection
            driver._conn.interrupt()
            driver._tx.put_nowait((None, driver._conn.rollback))

    event.listen(engine.sync_engine, "invalidate", abandon)
    # A connection comes back to the pool after its transaction, or is thrown away: either way the next may write.
    event.listen(engine.sync_engine, "checkin", release)
    event.listen(engine.sync_engine, "invalidate", release)
