"""Whole sagas run on a team's engines, with the tables in a schema, directly and through PgBouncer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from tests.conformance.operators import redrive, trip_with_a_dead_letter
from tests.conformance.team_world import SCHEMA, TeamWorld
from tests.conformance.test_a_saga_ends import (
    test_a_refusal_undoes_all_completed_steps,
    test_a_saga_whose_steps_succeed_completes_everywhere,
)
from tests.conformance.world import settings_for
from tests.conftest import PostgresDatabases
from tests.pooler import behind_pooler, needs_pgbouncer
from tests.servers import Server
from toolkit.client import DatabaseClient
from toolkit.client.verification import verify
from toolkit.declaration.contract import contract_of

#: The suite's own tests, which run here on this module's world.
__all__ = ["test_a_refusal_undoes_all_completed_steps", "test_a_saga_whose_steps_succeed_completes_everywhere"]


@pytest.fixture(params=["direct", pytest.param("pooled", marks=needs_pgbouncer)])
async def world(
    request: pytest.FixtureRequest, kept_databases: PostgresDatabases, rabbitmq: Server, tmp_path: Path, prefix: str
) -> AsyncIterator[TeamWorld]:
    """The trip's services, running; the login's search path does not lead to the schema."""
    urls = {name: await kept_databases.url(name) for name in ("hotel", "flight", "desk")}
    await kept_databases.empty()
    async with AsyncExitStack() as poolers:
        if request.param == "pooled":
            pooled = make_url(await poolers.enter_async_context(behind_pooler(urls["hotel"], tmp_path, "transaction")))
            databases = {name: make_url(url).database for name, url in urls.items()}
            urls = {name: pooled.set(database=each).render_as_string() for name, each in databases.items()}

        async def database_of(name: str) -> str:
            return urls[name]

        world = TeamWorld(settings_for(tmp_path, broker_url=rabbitmq.url, exchange=prefix), database_of)
        world.is_pooled = request.param == "pooled"
        await world.start()
        yield world
        await world.stop()
        await world.sweep()


async def test_the_tables_lie_in_the_schema_alone(world: TeamWorld) -> None:
    await world.request()
    await world.quiet()

    where = text("SELECT DISTINCT table_schema FROM information_schema.tables WHERE table_name LIKE 'saga%'")
    for engine in world.engines:
        async with engine.connect() as connection:
            assert list((await connection.execute(where)).scalars()) == [SCHEMA]


async def test_dead_letters_and_verification_work_there(world: TeamWorld) -> None:
    trip = await trip_with_a_dead_letter(world)

    await redrive(world, "flight")
    await world.quiet()

    assert await world.state(trip) == "Failed"
    clients = [
        DatabaseClient(each.name, url, contract=lambda service=each: contract_of(service, world.settings))
        for each in world.services
        for url in [world.runtimes[each.name].database.url]
    ]
    report = await verify(clients)
    for client in clients:
        await client.close()
    assert report.violations == []
