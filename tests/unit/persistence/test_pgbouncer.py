"""A service works behind PgBouncer in session mode and in transaction mode, where sessions change hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.example_sagas.library_branch import Branch, RecordingPublisher
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import lent, notes
from tests.example_sagas.loans import BookWanted, Clerk, library, tables
from tests.pooler import UNNAMED, behind_pooler, needs_pgbouncer
from toolkit.clock import SystemClock
from toolkit.configuration.settings import Settings
from toolkit.errors import SettingsError
from toolkit.persistence.database import Database
from toolkit.runtime.service_runtime import ServiceRuntime

pytestmark = needs_pgbouncer

#: How the pooler treats unknown startup parameters.
REFUSING, DROPPING = "", "ignore_startup_parameters = idle_in_transaction_session_timeout, plan_cache_mode"


@pytest.fixture(params=[REFUSING, DROPPING], ids=["refusing", "dropping"])
async def pooled(request: pytest.FixtureRequest, postgres: Database, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of the library's database behind a pooler with two sessions for all clients."""
    async with behind_pooler(postgres.url, tmp_path, "transaction", request.param) as url:
        yield url


@pytest.mark.parametrize("parameters", ["", "?statement_cache_size=0", "?schema=workflow"])
async def test_replicas_behind_a_pooler_act_once(pooled: str, clerk: Clerk, parameters: str) -> None:
    databases = [Database(pooled + parameters) for _ in range(2)]
    replicas = [Branch(library(clerk), each, resources={Clerk: clerk}, batch_size=7) for each in databases]
    messages = [wire(BookWanted(loan_id=f"loan-{number}")) for number in range(40)] * 2

    await databases[0].create_tables(tables)
    async with replicas[0].open(), replicas[1].open():
        await asyncio.gather(*(replica.batcher.deliver(each) for replica in replicas for each in messages))
    written = await lent(databases[0])
    noted = [await notes(databases[0], f"loan-{number}") for number in range(40)]
    for each in databases:
        await each.close()

    assert sorted(written) == sorted(f"loan-{number}" for number in range(40))
    assert noted == [[]] * 40


@pytest.mark.parametrize("parameters", ["", "?statement_cache_size=0"])
async def test_statement_mode_stops_startup_with_the_cure(
    postgres: Database, tmp_path: Path, clerk: Clerk, parameters: str
) -> None:
    async with behind_pooler(postgres.url, tmp_path, "statement") as url:
        host = ServiceRuntime(
            library(clerk), Settings(database_url=url + parameters), RecordingPublisher(), clock=SystemClock()
        )

        with pytest.raises(SettingsError, match="set pool_mode to transaction or session"):
            await asyncio.wait_for(host.prepare(), timeout=30)
        await host.stop()


async def test_a_service_works_behind_session_mode(postgres: Database, tmp_path: Path, clerk: Clerk) -> None:
    async with behind_pooler(postgres.url, tmp_path, "session") as url:
        database = Database(url)
        await Branch(library(clerk), database, resources={Clerk: clerk}).take(BookWanted(loan_id="loan-1"))
        await database.close()

    assert await lent(postgres) == ["loan-1"]


async def test_each_pooled_transaction_limits_its_idle_time(pooled: str) -> None:
    database = Database(pooled)

    async with database.transaction() as session:
        limit = await (await session.connection()).scalar(text("SHOW idle_in_transaction_session_timeout"))
    async with database.engine.connect() as connection:
        alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
        left = await alone.scalar(text("SHOW idle_in_transaction_session_timeout"))
    await database.close()

    assert (limit, left) == ("75s", "0")


async def test_a_teams_engine_leaves_pooled_sessions_alone(pooled: str) -> None:
    names = "idle_in_transaction_session_timeout", "plan_cache_mode"
    engine = create_async_engine(pooled.replace("postgresql:", "postgresql+asyncpg:"), connect_args=UNNAMED)

    async with Database.on_engine(engine).transaction() as session:
        within = [await (await session.connection()).scalar(text(f"SHOW {name}")) for name in names]
    async with engine.connect() as connection:
        alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
        left = [await alone.scalar(text(f"SHOW {name}")) for name in names]
    await engine.dispose()

    assert (within, left) == (["75s", "force_custom_plan"], ["0", "auto"])


async def test_behind_a_pooler_a_broken_connection_fails_alone(pooled: str, clerk: Clerk) -> None:
    database = Database(pooled)
    branch = Branch(library(clerk), database, resources={Clerk: clerk})

    async def end_its_own_backend(event: BookWanted, session: object) -> None:
        if event.loan_id == "loan-2":
            await (await session.connection()).execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))  # type: ignore[attr-defined]

    clerk.will("lend_book", *[end_its_own_backend] * 20)
    async with branch.open():
        deliveries = (branch.batcher.deliver(wire(BookWanted(loan_id=f"loan-{number}"))) for number in (1, 2, 3))
        await asyncio.wait_for(asyncio.gather(*deliveries), timeout=30)
    written, noted = await lent(database), await notes(database, "loan-2")
    await database.close()

    assert (written, noted) == (["loan-1", "loan-3"], ["retrying"])
