"""The toolkit works on a team's own engine, and leaves the team's use of it as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import JSON, Column, Integer, MetaData, Table, create_engine, event, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from tests.example_sagas.library_branch import Branch, RecordingPublisher
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import lent
from tests.example_sagas.loans import BookWanted, Clerk, library, shelves
from toolkit.clock import SystemClock
from toolkit.configuration.settings import Settings
from toolkit.errors import SettingsError
from toolkit.persistence.database import Database
from toolkit.runtime.service_runtime import ServiceRuntime


def for_async(url: str) -> str:
    return url.replace("sqlite:", "sqlite+aiosqlite:").replace("postgresql:", "postgresql+asyncpg:")


@pytest.fixture
async def team(database: Database) -> AsyncIterator[AsyncEngine]:
    """A team's engine of the library's database."""
    engine = create_async_engine(for_async(database.url))
    yield engine
    await engine.dispose()


@pytest.fixture
async def on_server(postgres: Database) -> AsyncIterator[AsyncEngine]:
    """A team's engine of the library's database on PostgreSQL."""
    engine = create_async_engine(for_async(postgres.url))
    yield engine
    await engine.dispose()


async def lend(database: Database, clerk: Clerk, *numbers: int) -> None:
    branch = Branch(library(clerk), database, resources={Clerk: clerk})
    async with branch.open():
        await asyncio.gather(*(branch.batcher.deliver(wire(BookWanted(loan_id=f"loan-{each}"))) for each in numbers))


async def books(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(select(shelves.c.books).where(shelves.c.shelf == 1)) or 0)


async def test_steps_and_the_teams_writers_lose_no_update(team: AsyncEngine, clerk: Clerk) -> None:
    async def take_one(_: int) -> None:
        async with team.begin() as connection:
            await connection.execute(shelves.update().values(books=shelves.c.books - 1))

    database = Database.on_engine(team)
    await asyncio.gather(lend(database, clerk, *range(20)), *map(take_one, range(10)))

    assert len(await lent(database)) == 20
    assert await books(team) == 90
    await database.close()


async def test_a_stopped_service_leaves_the_engine_open(team: AsyncEngine, clerk: Clerk) -> None:
    settings = Settings()
    runtime = ServiceRuntime(library(clerk), settings, RecordingPublisher(), clock=SystemClock(), engine=team)
    await runtime.start()
    async with team.begin() as held:
        await held.execute(shelves.update().values(books=1))
        await runtime.stop()
        assert await held.scalar(text("SELECT 1")) == 1

    assert await books(team) == 1


async def test_a_teams_transactions_roll_back_as_before(team: AsyncEngine) -> None:
    database = Database.on_engine(team)
    async with team.connect() as connection:
        await connection.execute(shelves.update().values(books=5))
        await connection.rollback()

    assert await books(team) == 100
    await database.close()


async def test_only_a_teams_own_errors_show_values(team: AsyncEngine) -> None:
    database = Database.on_engine(team)
    again = insert(shelves).values(shelf=1, books=41_000_001)

    with pytest.raises(IntegrityError) as of_team:
        async with team.begin() as connection:
            await connection.execute(again)
    with pytest.raises(IntegrityError) as of_toolkit:
        async with database.transaction() as session:
            await (await session.connection()).execute(again)

    assert "41000001" in str(of_team.value)
    assert "41000001" not in str(of_toolkit.value)
    await database.close()


async def test_starts_on_one_engine_add_no_listeners(team: AsyncEngine) -> None:
    async def start() -> tuple[int, int]:
        await Database.on_engine(team).close()
        dispatch = team.dialect.dispatch
        return len(team.sync_engine.pool.dispatch.connect), len(dispatch.handle_error) + len(dispatch.do_execute)

    first = await start()

    assert [await start() for _ in range(3)] == [first] * 3


def engines_that_do_not_fit() -> dict[str, tuple[Any, str]]:
    server = "postgresql+asyncpg://library@127.0.0.1/library"
    other = create_async_engine(server)
    other.dialect.driver = "psycopg"
    return {
        "no engine": ("sqlite:///library.db", "engine= is a str: hand over one of"),
        "synchronous": (create_engine("sqlite:///library.db"), "engine= is a synchronous engine: hand over one of"),
        "another driver": (other, r"one for postgresql\+psycopg: hand over one for postgresql\+asyncpg"),
        "in memory": (create_async_engine("sqlite+aiosqlite://"), "SQLite is in memory.*name a file"),
        "one connection": (create_async_engine(server, poolclass=StaticPool), "has a StaticPool.*leave out poolclass"),
        "autocommit": (create_async_engine(server, isolation_level="AUTOCOMMIT"), "isolation level is AUTOCOMMIT"),
        "serializable": (
            create_async_engine(server).execution_options(isolation_level="SERIALIZABLE"),
            r'hand over engine.execution_options\(isolation_level="READ COMMITTED"\)',
        ),
    }


@pytest.mark.parametrize("which", engines_that_do_not_fit())
def test_an_engine_that_does_not_fit_is_refused(which: str, clerk: Clerk) -> None:
    engine, cure = engines_that_do_not_fit()[which]

    with pytest.raises(SettingsError, match=cure):
        ServiceRuntime(library(clerk), Settings(), RecordingPublisher(), clock=SystemClock(), engine=engine)


async def test_the_cure_for_autocommit_works(postgres: Database, clerk: Clerk) -> None:
    engine = create_async_engine(for_async(postgres.url), isolation_level="AUTOCOMMIT")

    database = Database.on_engine(engine.execution_options(isolation_level="READ COMMITTED"))
    async with database.session() as session:
        await (await session.connection()).execute(shelves.update().values(books=5))
        await session.rollback()
    await lend(database, clerk, 1)

    assert (await books(engine), await lent(database)) == (100, ["loan-1"])
    await engine.dispose()


async def test_a_teams_hook_gives_each_connection_its_password(postgres: Database, clerk: Clerk) -> None:
    url = postgres.engine.url
    engine = create_async_engine(for_async(postgres.url).replace(f":{url.password}@", ":stale@"))
    database = Database.on_engine(engine)

    @event.listens_for(engine.sync_engine, "do_connect")
    def refresh(_: Any, __: Any, ___: Any, parameters: dict[str, Any]) -> None:
        parameters["password"] = url.password

    await lend(database, clerk, 1)

    assert await lent(database) == ["loan-1"]
    await engine.dispose()


async def test_sessions_get_the_settings_that_the_team_left_open(postgres: Database) -> None:
    async def shown(**server_settings: str) -> list[str]:
        engine = create_async_engine(for_async(postgres.url), connect_args={"server_settings": server_settings})
        database = Database.on_engine(engine)
        names = "idle_in_transaction_session_timeout", "plan_cache_mode"
        async with database.reading() as connection:
            found = [str(await connection.scalar(text(f"SHOW {name}"))) for name in names]
        await engine.dispose()
        return found

    assert await shown() == ["75s", "force_custom_plan"]
    assert await shown(idle_in_transaction_session_timeout="7000") == ["7s", "force_custom_plan"]


async def test_connections_from_before_are_set_in_each_transaction(on_server: AsyncEngine, clerk: Clerk) -> None:
    async with on_server.connect() as connection:
        await connection.scalar(text("SELECT 1"))  # it is in the pool now, without the settings

    database = Database.on_engine(on_server)
    async with database.transaction() as session:
        plan = await (await session.connection()).scalar(text("SHOW plan_cache_mode"))
    async with on_server.connect() as connection:
        left = await connection.scalar(text("SHOW plan_cache_mode"))
    await lend(database, clerk, 1)

    assert (plan, left, await lent(database)) == ("force_custom_plan", "auto", ["loan-1"])


async def test_sqlites_steps_have_what_the_team_set_up(sqlite: Database, clerk: Clerk) -> None:
    own = MetaData()
    notes = Table("notes", own, Column("id", Integer, primary_key=True), Column("text", JSON))
    engine = create_async_engine(
        for_async(sqlite.url), json_serializer=lambda each: json.dumps({"by": "team", "is": each})
    )

    @event.listens_for(engine.sync_engine, "connect")
    def add_function(connection: Any, _: Any) -> None:
        connection.create_function("twice", 1, lambda each: each * 2)

    database = Database.on_engine(engine)
    await database.create_tables(own)
    async with database.transaction() as session:
        connection = await session.connection()
        await connection.execute(insert(notes).values(text="lent"))
        seen = (
            await connection.scalar(text("SELECT twice(21)")),
            await connection.scalar(text("SELECT text FROM notes")),
        )
        enforced = await connection.scalar(text("PRAGMA foreign_keys"))
    async with engine.connect() as connection:
        left = await connection.scalar(text("PRAGMA foreign_keys"))

    assert (seen, enforced, left) == ((42, '{"by": "team", "is": "lent"}'), 1, 0)
    await engine.dispose()
    await database.close()
