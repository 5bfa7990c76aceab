"""The toolkit's tables lie in a schema of the team's choice, which is in nobody's search path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.eventually import eventually
from tests.example_sagas.library_branch import Branch, RecordingPublisher
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import lent
from tests.example_sagas.loans import BookWanted, CardRefused, Clerk, library, tables
from tests.former_tables import take_prefixes_away
from tests.round_trips import counted
from tests.unit.persistence.faults import change
from tests.unit.persistence.saga_entries import entry
from tests.unit.persistence.test_team_engine import for_async
from toolkit.clock import SystemClock
from toolkit.configuration.settings import Settings
from toolkit.errors import SchemaVersionError, SettingsError
from toolkit.persistence.batch_write import BatchWrite
from toolkit.persistence.database import Database
from toolkit.persistence.migrations import revisions
from toolkit.persistence.outbox import outbox
from toolkit.persistence.schema_version import HEAD
from toolkit.runtime.service_runtime import ServiceRuntime

PLACES = ["workflow", "Workflow", "order"]  # the second and the third are quoted


@pytest.fixture(params=PLACES)
async def placed(request: pytest.FixtureRequest, postgres: Database) -> AsyncIterator[Database]:
    """The library's database, with the toolkit's tables in a schema, and none in its default schema."""
    await change(postgres, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    database = Database(f"{postgres.url}?schema={request.param}")
    yield database
    await database.close()


async def nudged(publisher: RecordingPublisher) -> bool:
    return any("nudge" in each.headers for each in publisher.taken)


async def names(database: Database, schema: str | None) -> set[str]:
    async with database.reading() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names(schema=schema)))


async def test_only_the_toolkits_tables_lie_there(placed: Database) -> None:
    await placed.create_tables(tables)
    await placed.create_tables(tables)  # a second start finds them

    schema = placed.url.partition("schema=")[2]
    assert await names(placed, None) == {"shelves", "loans"}
    assert {"saga_log", "saga_outbox", "saga_schema_version"} <= await names(placed, schema)


async def test_steps_and_loops_work_in_the_schema(placed: Database, clerk: Clerk) -> None:
    settings = Settings(
        database_url=placed.url, watch_every=timedelta(milliseconds=50), overdue_after=timedelta(seconds=1),
        nudge_every=timedelta(milliseconds=100), retention=timedelta(days=1),
    )  # fmt: skip
    publisher = RecordingPublisher()
    runtime = ServiceRuntime(library(clerk), settings, publisher, clock=SystemClock())
    await runtime.prepare()
    await change(placed, "INSERT INTO shelves VALUES (1, 100)")
    runtime.begin()

    await asyncio.gather(*(runtime.batcher.deliver(wire(BookWanted(loan_id=f"loan-{each}"))) for each in range(10)))
    await runtime.batcher.deliver(wire(CardRefused(loan_id="loan-1", reason="no card")))
    await eventually(lambda: nudged(publisher), within=30, what="a nudge")
    await runtime.drain(within=5)
    await runtime.stop()

    assert len(await lent(Database(placed.url))) == 10
    assert {each.type for each in publisher.taken} == {"BookLent", "BookTakenBack"}


async def test_a_batch_in_a_schema_costs_no_more_round_trips(postgres: Database) -> None:
    async def cost(url: str, *, of_team: bool) -> int:
        async with counted(url) as trips:
            engine = create_async_engine(for_async(trips.url).replace("sslmode=disable", "ssl=disable"))
            schema = "workflow" if "schema" in url else None
            database = Database.on_engine(engine, schema=schema) if of_team else Database(trips.url)
            await database.create_tables()
            for number in (1, 2):
                before = trips.count
                async with database.batch() as transaction:
                    await transaction.read_streams(["loan-1"])
                    await transaction.write(
                        BatchWrite(entries=[entry(f"loan-{of_team}", position=number)], sent=["row-1"])
                    )
                taken = trips.count - before
            await database.close()
            await engine.dispose()
        return taken

    without = await cost(postgres.url, of_team=False)
    assert without == 2
    assert await cost(f"{postgres.url}?schema=workflow", of_team=False) == without
    assert await cost(postgres.url, of_team=True) == without


async def test_tables_of_a_schema_are_upgraded_there(placed: Database, clerk: Clerk) -> None:
    await placed.create_tables(tables)
    await change(placed, "INSERT INTO shelves VALUES (1, 100)")
    await take_prefixes_away(placed)

    with pytest.raises(SchemaVersionError, match="`saga db upgrade library`"):
        await placed.create_tables(service="library")
    await revisions.upgrade(placed, service="library")
    await Branch(library(clerk), placed, resources={Clerk: clerk}).take(BookWanted(loan_id="loan-1"))

    assert (await revisions.current(placed)).number == HEAD
    assert await lent(placed) == ["loan-1"]


async def test_a_teams_session_on_the_engine_finds_the_tables(postgres: Database) -> None:
    engine = create_async_engine(for_async(postgres.url))
    database = Database.on_engine(engine, schema="workflow")
    await database.create_tables()

    async with engine.connect() as connection:
        rows = (await connection.execute(select(outbox))).all()
        with pytest.raises(Exception, match="does not exist"):
            await connection.execute(text("SELECT * FROM saga_no"))
    await engine.dispose()

    assert rows == []


async def test_one_engine_has_one_schema(postgres: Database, sqlite: Database) -> None:
    engine, file = (create_async_engine(for_async(each.url)) for each in (postgres, sqlite))
    Database.on_engine(engine, schema="workflow")
    mapped = create_async_engine(for_async(postgres.url), execution_options={"schema_translate_map": {None: "tenant"}})

    with pytest.raises(SettingsError, match="in the schema workflow already; create another engine"):
        Database.on_engine(engine, schema="other")
    with pytest.raises(SettingsError, match="in the schema workflow already; create another engine"):
        Database.on_engine(engine)
    with pytest.raises(SettingsError, match="hand over the engine without it"):
        Database.on_engine(mapped, schema="workflow")
    with pytest.raises(SettingsError, match="SQLite has no schemas: leave out workflow"):
        Database.on_engine(file, schema="workflow")


async def test_tables_missing_in_the_schema_are_named(postgres: Database) -> None:
    database = Database(f"{postgres.url}?schema=nowhere")

    with pytest.raises(SchemaVersionError, match=r"there are no tables of the toolkit in .*schema=nowhere"):
        await database.create_tables(service="library", may_create=False)
    await database.close()
