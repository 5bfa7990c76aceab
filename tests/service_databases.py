"""A separate database for each test: a SQLite file, or a PostgreSQL database that is dropped afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.conftest import PostgresDatabases
from toolkit.persistence.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'service.db'}"
        return
    databases = PostgresDatabases(request.getfixturevalue("postgresql").url)
    yield await databases.url("service")
    await databases.drop()


@pytest.fixture
async def engine(database_url: str, tables: MetaData) -> AsyncIterator[AsyncEngine]:
    """The service's database, with the `tables` of the test's module."""
    database = Database(database_url)
    await database.create_tables(tables)
    yield database.engine
    await database.close()


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session
