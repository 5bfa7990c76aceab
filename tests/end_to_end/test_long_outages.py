"""A database outage beyond the broker's consumer timeout dead-letters nothing, and holds few deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aio_pika
import pytest

from tests.conftest import PostgresDatabases
from tests.end_to_end.breakable import Breakable, OwnServer, breakable, own_server
from tests.end_to_end.lethal import bakery, order
from tests.eventually import eventually
from tests.servers import RABBITMQ, Server
from toolkit import Settings
from toolkit.app import App
from toolkit.persistence import availability, dead_letter_queries, saga_log_queries
from toolkit.persistence.database import Database

pytestmark = pytest.mark.timeout(240)

#: The broker's consumer timeout, by default half an hour, and its interval of checks, in milliseconds.
_CONSUMER_TIMEOUT, _TICK = 3_000, 500
_ORDERS, _PREFETCH = 60, 10


@pytest.fixture(scope="module")
def impatient() -> Iterator[OwnServer]:
    """A broker with a short consumer timeout."""
    with own_server(RABBITMQ) as server:
        if server.container is None:
            pytest.skip("no Docker engine answers on this machine, and a shared broker's settings are not changed")
        for name, value in (("consumer_timeout", _CONSUMER_TIMEOUT), ("channel_tick_interval", _TICK)):
            setting = f"application:set_env(rabbit, {name}, {value})."
            code, output = server.container.exec(["rabbitmqctl", "eval", setting])
            assert code == 0, output
        yield server


@pytest.fixture
async def database(postgresql: Server) -> AsyncIterator[Breakable]:
    async with breakable(OwnServer(RABBITMQ, postgresql.url, None)) as server:
        yield server


@pytest.mark.parametrize("long_outage", [2.0, 3600.0], ids=["returned before", "taken back by the broker"])
async def test_an_outage_beyond_the_consumer_timeout_loses_nothing(
    impatient: OwnServer,
    database: Breakable,
    postgres_databases: PostgresDatabases,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    long_outage: float,
) -> None:
    monkeypatch.setattr(availability, "LONG_OUTAGE", long_outage)
    url = await postgres_databases.url("bakery")
    settings = Settings(broker_url=impatient.url, exchange=prefix, data_dir=tmp_path, prefetch=_PREFETCH)
    app = App(bakery, settings.model_copy(update={"database_url": database.proxy.through(url)}))
    await app.start()
    connection = await aio_pika.connect(impatient.url)
    async with connection, connection.channel() as channel:
        database.proxy.refuse()
        for number in range(_ORDERS):
            wire = order(number, is_lethal=False)
            sent = aio_pika.Message(wire.body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await (await channel.get_exchange(prefix)).publish(sent, routing_key=wire.routing_key)
        held = await most_held(app, seconds=4 * _CONSUMER_TIMEOUT / 1000)
        database.proxy.heal()

        seen = Database(url)
        await eventually(lambda: have_ended(seen), within=60, what="all orders ended")
        async with seen.reading() as reading:
            assert await dead_letter_queries.count(reading) == 0
        await seen.close()
        dead = await channel.declare_queue(f"{prefix}.bakery.dead", passive=True)
        assert dead.declaration_result.message_count == 0
    await app.stop()
    # Deliveries of a closed channel are forgotten, except those of the batch that waits for the database.
    assert held <= 2 * _PREFETCH


async def most_held(app: App, *, seconds: float) -> int:
    """Return the most deliveries that the process has held meanwhile."""
    most = 0
    try:
        async with asyncio.timeout(seconds):  # the outage's own length
            while True:
                assert app._consumer is not None
                most = max(most, len(app._consumer.deliveries))
                await asyncio.sleep(0.05)
    except TimeoutError:
        return most


async def have_ended(database: Database) -> bool:
    async with database.reading() as connection:
        sagas = await saga_log_queries.sagas(connection, limit=100)
        return sum(each.state == "Completed" for each in sagas) == _ORDERS
