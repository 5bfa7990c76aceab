"""One suite, every transport on every database that it runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.world import EmbeddedWorld, RabbitWorld, World, settings_for
from tests.conftest import PostgresDatabases
from tests.servers import Server


@pytest.fixture(params=["embedded-sqlite", "rabbit-sqlite", "rabbit-postgresql"])
async def world(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[World]:
    """The trip's services at work."""
    if request.param == "embedded-sqlite":
        embedded = EmbeddedWorld(settings_for(tmp_path))
        await embedded.start()
        yield embedded
        await embedded.stop()
        return
    rabbitmq: Server = request.getfixturevalue("rabbitmq")
    databases: PostgresDatabases | None = None
    if request.param == "rabbit-postgresql":
        databases = request.getfixturevalue("kept_databases")
        await databases.empty()

    async def database_of(name: str) -> str | None:
        return await databases.url(name) if databases else None

    rabbit = RabbitWorld(settings_for(tmp_path, broker_url=rabbitmq.url, exchange=prefix), database_of)
    await rabbit.start()
    yield rabbit
    await rabbit.stop()
    await rabbit.sweep()
