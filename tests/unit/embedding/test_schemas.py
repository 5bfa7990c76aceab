"""A start goes into the schema of its service's tables, on any engine of the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.conftest import PostgresDatabases
from tests.example_sagas.library_branch import RecordingPublisher
from tests.unit.embedding.shop import OrderPlaced, running, sessions, shop, sync_session, warehouse
from tests.unit.runtime.relays import until_published
from toolkit import start, start_sync
from toolkit.embedding import NoOutboxError
from toolkit.persistence.database import Database


@pytest.fixture
async def own(postgres_databases: PostgresDatabases) -> AsyncIterator[Database]:
    """A database of the test's own: its schemas are not those of other tests."""
    database = Database(await postgres_databases.url("library"))
    yield database
    await database.close()


async def test_engines_of_the_application_find_the_schema(own: Database) -> None:
    publisher = RecordingPublisher()

    def place() -> None:
        with sync_session(own) as session:
            start_sync(session, OrderPlaced(order_id="order-1"))
            session.commit()

    async with running(shop(), own, publisher, schema="workflow"), sessions(own) as team:
        await asyncio.to_thread(place)
        async with team() as session, session.begin():
            await start(session, OrderPlaced(order_id="order-2"))
        await until_published(publisher, 2)

    assert sorted(map(str, publisher.saga_ids())) == ["order-1", "order-2"]


async def test_a_process_without_the_service_reads_the_setting(own: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(shop(), own, RecordingPublisher(), schema="workflow"):
        pass
    monkeypatch.setenv("SAGA_DATABASE_SCHEMA", "workflow")

    async with sessions(own) as team, team() as session, session.begin():
        await start(session, OrderPlaced(order_id="order-1"))

    async with own.reading() as connection:
        rows = await connection.exec_driver_sql("SELECT saga_id FROM workflow.saga_outbox")
        assert list(rows.scalars()) == ["order-1"]


async def test_several_schemas_need_the_services_engine(own: Database) -> None:
    one, other = RecordingPublisher(), RecordingPublisher()
    async with (
        running(shop(), own, one, schema="shop"),
        running(warehouse(), own, other, schema="warehouse"),
        sessions(own) as team,
        team() as session,
    ):
        with pytest.raises(NoOutboxError, match="in several schemas: shop, warehouse; bind the session to the engine"):
            await start(session, OrderPlaced(order_id="order-1"))


async def test_the_engine_of_a_service_has_its_schema(own: Database) -> None:
    engine = create_async_engine(own.url.replace("postgresql", "postgresql+asyncpg", 1))
    database = Database.on_engine(engine, schema="workflow")
    await database.create_tables()

    async with AsyncSession(engine) as session, session.begin():
        await start(session, OrderPlaced(order_id="order-1"))

    async with own.reading() as connection:
        rows = await connection.exec_driver_sql("SELECT saga_id FROM workflow.saga_outbox")
        assert list(rows.scalars()) == ["order-1"]
    await engine.dispose()
