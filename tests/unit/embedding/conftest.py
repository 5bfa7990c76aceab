"""A shop whose service runs on the test's database, and the shop's own sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest

from tests.example_sagas.library_branch import RecordingPublisher
from tests.servers import Server
from tests.unit.embedding.shop import Sessions, running, sessions, shop
from tests.unit.embedding.web_shop import TOKEN
from toolkit import Settings
from toolkit.configuration.settings import queue_name
from toolkit.persistence.database import Database


@pytest.fixture
async def sent(database: Database) -> AsyncIterator[RecordingPublisher]:
    """What the shop's service sends; only a commit wakes its relay."""
    publisher = RecordingPublisher()
    async with running(shop(), database, publisher):
        yield publisher


@pytest.fixture
async def team(database: Database) -> AsyncIterator[Sessions]:
    """The shop's own sessions."""
    async with sessions(database) as made:
        yield made


@pytest.fixture
async def settings(rabbitmq: Server, prefix: str, tmp_path: Path) -> AsyncIterator[Settings]:
    """The application's settings; what its services declare is deleted afterwards."""
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path, api_read_token=TOKEN)
    yield settings
    async with await aio_pika.connect(rabbitmq.url) as connection, connection.channel() as channel:
        for service in ("shop", "warehouse"):
            name = queue_name(settings, service)
            await channel.queue_delete(name)
            await channel.queue_delete(f"{name}.dead")
            await channel.exchange_delete(name)
        await channel.queue_delete(f"{prefix}.letters")
        await channel.exchange_delete(prefix)
        await channel.exchange_delete(f"{prefix}.dead")
