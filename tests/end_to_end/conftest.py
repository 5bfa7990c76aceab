"""The four services behind proxies, on servers that a test may break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.conftest import PostgresDatabases
from tests.end_to_end.breakable import OwnServer, breakable, own_server
from tests.end_to_end.breakable_shop import BreakableShop
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.placed_orders import PATIENT, SERVICES
from tests.servers import POSTGRESQL, RABBITMQ
from toolkit import Settings


@pytest.fixture(scope="module")
def own_rabbitmq() -> Iterator[OwnServer]:
    with own_server(RABBITMQ) as server:
        yield server


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[OwnServer]:
    with own_server(POSTGRESQL) as server:
        yield server


@pytest.fixture
async def shop(
    own_rabbitmq: OwnServer, own_postgresql: OwnServer, tmp_path: Path, prefix: str
) -> AsyncIterator[BreakableShop]:
    databases = PostgresDatabases(own_postgresql.url)
    urls = {name: await databases.url(name) for name in SERVICES}
    async with breakable(own_rabbitmq) as broker, breakable(own_postgresql) as database, AsyncExitStack() as stack:
        fleet = Fleet(
            Settings(broker_url=broker.url, exchange=prefix, data_dir=tmp_path),
            urls,
            through=lambda _, url: broker.proxy.through(database.proxy.through(url)),
            environment=PATIENT,
        )
        stack.push_async_callback(databases.drop)
        stack.push_async_callback(fleet.stop)
        stack.callback(database.proxy.heal)
        stack.callback(broker.proxy.heal)
        yield BreakableShop(fleet, broker, database, lambda name: f"{prefix}.{name}")
