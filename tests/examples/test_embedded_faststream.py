"""The depot's application over RabbitMQ, with the courier beside it, on each database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest

from tests.eventually import eventually
from tests.examples.processes import processes, sqlalchemy_url, sweep
from tests.servers import Server
from tests.service_databases import database_url
from toolkit import Settings
from toolkit.persistence.database import Database

__all__ = ["database_url"]


class Depot:
    """The running application: its queue, and its database."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings = settings
        self.database = Database(url)

    async def scan(self, *parcels: tuple[str, str, int]) -> None:
        """Send what the sorting machine sends."""
        async with await aio_pika.connect(self.settings.broker_url) as connection, connection.channel() as channel:
            for parcel_id, street, grams in parcels:
                body = json.dumps({"parcel_id": parcel_id, "street": street, "grams": grams}).encode()
                message = aio_pika.Message(body, content_type="application/json")
                await channel.default_exchange.publish(message, f"{self.settings.exchange}.arrivals")

    async def rows(self, query: str) -> list[tuple[object, ...]]:
        """Return rows of the depot's database."""
        async with self.database.reading() as connection:
            return [tuple(row) for row in await connection.exec_driver_sql(query)]


@pytest.fixture
async def depot(rabbitmq: Server, database_url: str, tmp_path: Path, prefix: str) -> AsyncIterator[Depot]:
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
    commands = (
        ("faststream", "run", "examples.embedded_faststream.depot.stream:app"),
        ("toolkit.cli", "run", "examples.embedded_faststream.courier.app:app"),
    )
    found = Depot(settings, database_url)
    async with processes(settings, *commands, DEPOT_DATABASE_URL=sqlalchemy_url(database_url)):
        await eventually(lambda: is_declared(settings), within=100, what="the application")
        yield found
    await found.database.close()
    await sweep(settings, "depot", "courier", queues=(f"{prefix}.arrivals", f"{prefix}.deliveries"))


async def is_declared(settings: Settings) -> bool:
    """Whether the application, its service and the courier have their queues."""
    try:
        async with await aio_pika.connect(settings.broker_url) as connection:
            for name in ("arrivals", "deliveries", "depot", "courier"):
                async with connection.channel() as channel:
                    await channel.declare_queue(f"{settings.exchange}.{name}", passive=True)
    except aio_pika.exceptions.ChannelNotFoundEntity:
        return False
    return True


async def test_parcels_are_delivered_or_returned(depot: Depot) -> None:
    known, unknown, heavy = (
        ("parcel-1", "Long Lane 7", 1200),
        ("parcel-2", "Nowhere 1", 1200),
        ("parcel-3", "Quay", 30_001),
    )
    await depot.scan(known, known, unknown, heavy)
    ended = "SELECT saga_id, saga_state FROM saga_log WHERE saga_state IN ('Completed', 'Failed')"

    async def have_ended() -> dict[object, object]:
        found = dict(await depot.rows(ended))  # type: ignore[arg-type]
        return found if len(found) == 3 else {}

    async def is_noted() -> bool:
        return (await depot.rows("SELECT count(*) FROM parcel WHERE is_delivered"))[0] == (1,)

    assert await eventually(have_ended, within=100, what="the ends") == {
        "parcel-1": "Completed",
        "parcel-2": "Failed",
        "parcel-3": "Failed",
    }
    await eventually(is_noted, what="the note of the delivery")
    shelves = await depot.rows("SELECT parcel_id, is_cleared FROM shelf ORDER BY parcel_id")
    assert [(parcel, bool(is_cleared)) for parcel, is_cleared in shelves] == [("parcel-1", False), ("parcel-2", True)]
    assert await depot.rows("SELECT id FROM parcel ORDER BY id") == [("parcel-1",), ("parcel-2",), ("parcel-3",)]
