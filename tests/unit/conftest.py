"""The library's database for each test, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import PostgresDatabases
from tests.example_sagas.loans import Clerk, stock
from toolkit.persistence.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """The library's database, with two shelves of a hundred books each."""
    if request.param == "sqlite":
        async with on_file(tmp_path) as database:
            yield database
    else:
        async with on_server(request.getfixturevalue("kept_databases")) as database:
            yield database


@pytest.fixture
async def postgres(kept_databases: PostgresDatabases) -> AsyncIterator[Database]:
    """The library's database on PostgreSQL, for tests with several connections at once."""
    async with on_server(kept_databases) as database:
        yield database


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Database]:
    """The library's database in a file, for tests of SQLite alone."""
    async with on_file(tmp_path) as database:
        yield database


@pytest.fixture
def clerk() -> Clerk:
    """The clerk that does the library's steps."""
    return Clerk()


@asynccontextmanager
async def on_file(folder: Path) -> AsyncIterator[Database]:
    """Open a stocked library in a file."""
    database = Database(f"sqlite:///{folder / 'library.db'}")
    await stock(database)
    yield database
    await database.close()


@asynccontextmanager
async def on_server(databases: PostgresDatabases) -> AsyncIterator[Database]:
    """Open a stocked library on the server, after deleting the last test's rows."""
    await databases.empty()
    database = Database(await databases.url("library"))
    await stock(database)
    yield database
    await database.close()
