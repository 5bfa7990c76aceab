"""One service's database, SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from sqlalchemy import MetaData, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from toolkit.errors import DatabaseUnavailableError
from toolkit.extras import require
from toolkit.persistence.batch_transaction import BatchTransaction
from toolkit.persistence.database_errors import describe_fault
from toolkit.persistence.direct_statements import raise_as_sqlalchemy
from toolkit.persistence.postgres import postgres_engine
from toolkit.persistence.schema import check_columns, lock_tables
from toolkit.persistence.sqlite import sqlite_engine
from toolkit.persistence.step_session import StepSession, refuse_ends_while_lent
from toolkit.persistence.tables import prepare_tables
from toolkit.persistence.team_engine import on_team_engine


class Database:
    """Opens sessions and connections to one database, given as `sqlite:///path` or `postgresql://…`.

    `engine`: one that is open already, and stays open; the URL is its own.

    Raises:
        MissingExtraError: its driver is not installed.
    """

    def __init__(self, url: str, *, engine: AsyncEngine | None = None) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        require(*(("sqlite", "SQLite") if self.is_sqlite else ("postgres", "PostgreSQL")))
        self.engine = engine or (sqlite_engine(url) if self.is_sqlite else postgres_engine(make_url(url)))
        self._is_shared = engine is not None and not self.is_sqlite
        refuse_ends_while_lent(self.engine)
        raise_as_sqlalchemy(self.engine)

    @classmethod
    def on_engine(cls, engine: AsyncEngine, *, schema: str | None = None) -> Self:
        """Return the database of a team's own engine, with the toolkit's tables in this schema.

        Raises:
            SettingsError: the engine does not fit, or its database has no schemas.
        """
        own = on_team_engine(engine, schema)
        url = own.url.set(drivername=own.dialect.name).update_query_dict({"schema": schema} if schema else {})
        return cls(url.render_as_string(hide_password=False), engine=own)

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

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[BatchTransaction]:
        """Open the transaction of a batch, commit at the end, roll back on an exception."""
        transaction = BatchTransaction(await self.engine.connect())
        try:
            yield transaction
            await transaction.commit()
        except BaseException:  # a cancellation, too, must not leave the transaction open
            await transaction.rollback()
            raise
        finally:
            await transaction.close()

    def session(self) -> StepSession:
        """Return a session that takes a connection at its first use."""
        return StepSession(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a read-only connection, which waits for no writer."""
        async with self.engine.connect() as connection:
            yield await connection.execution_options(reading=True)

    async def create_tables(self, *tables: MetaData, service: str = "SERVICE", may_create: bool = True) -> None:
        """Create the toolkit's tables and these where they are missing; replicas may do so at the same time.

        Raises:
            SchemaVersionError: the toolkit's tables are not those of this release; the text names `service`.
            SettingsError: an existing table lacks a column, or one is missing and `may_create` is false.
        """
        async with self.engine.begin() as connection:
            await lock_tables(connection)
            await connection.run_sync(prepare_tables, service=service, may_create=may_create)
            for each in tables:
                if may_create:
                    await connection.run_sync(each.create_all)
                await connection.run_sync(check_columns, each)

    async def ping(self) -> None:
        """Check that the database answers.

        Raises:
            DatabaseUnavailableError: it did not answer within two seconds.
        """
        try:
            async with asyncio.timeout(2), self.reading() as connection:
                await connection.execute(text("SELECT 1"))
        except (DBAPIError, OSError, TimeoutError) as error:
            raise DatabaseUnavailableError(f"the database does not answer: {describe_fault(error)}") from error

    async def close(self) -> None:
        """Close all connections, except those of a team's engine."""
        if not self._is_shared:
            await self.engine.dispose()
