"""An example's services on RabbitMQ, or in one process, each with its database; and the databases of single steps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conformance.world import EmbeddedWorld, RabbitWorld, settings_for
from tests.conftest import PostgresDatabases
from tests.examples.demos import DEMOS
from tests.examples.running import Running
from tests.servers import Server
from tests.service_databases import database_url, engine, session
from toolkit.cli.demonstration import Demo

__all__ = ["database_url", "engine", "session"]


@pytest.fixture(params=DEMOS)
def demo(request: pytest.FixtureRequest) -> Demo:
    """Each example."""
    return DEMOS[request.param]


@pytest.fixture(params=["sqlite", "postgresql"])
async def running(
    request: pytest.FixtureRequest,
    demo: Demo,
    rabbitmq: Server,
    tmp_path: Path,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Running]:
    """The example's services on RabbitMQ, two replicas each; its outside ledgers are databases, too.

    A test that names the parameter `embedded` gets them in one process, without a broker.
    """
    if request.param == "embedded":
        async with embedded(demo, tmp_path) as running:
            yield running
        return
    settings = settings_for(tmp_path, broker_url=rabbitmq.url, exchange=prefix, **demo.settings)
    urls = {each.name: settings.database_for(each.name) for each in demo.services}
    if request.param == "postgresql":
        databases: PostgresDatabases = request.getfixturevalue("kept_databases")
        await databases.empty()
        urls = {name: await databases.url(name) for name in urls}
        for variable in demo.ledgers:
            monkeypatch.setenv(variable, await databases.url(variable.lower()))

    async def database_of(name: str) -> str:
        return urls[name]

    world = RabbitWorld(settings, database_of, lambda _: list(demo.services))
    await world.start()
    replicas = [await world.app(each.name) for each in demo.services]
    for replica in replicas:
        await replica.start()
    found = Running(demo, world, urls)
    yield found
    await found.close()
    for replica in replicas:
        await replica.stop()
    await world.stop()
    await world.sweep()


@asynccontextmanager
async def embedded(demo: Demo, directory: Path) -> AsyncIterator[Running]:
    """Run the example's services in this process, on SQLite."""
    world = EmbeddedWorld(
        settings_for(directory, broker_url="embedded", **demo.settings), lambda _: list(demo.services)
    )
    await world.start()
    running = Running(demo, world, {each.name: world.settings.database_for(each.name) for each in demo.services})
    yield running
    await running.close()
    await world.stop()
