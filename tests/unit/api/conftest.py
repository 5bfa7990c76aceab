"""The payment service's API in this process, with two sagas and a dead letter of each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from tests.orders import fulfilled_order, paid_order
from tests.unit.api.payment_api import SHOWING, TOKEN, Client, dead_letter_of, nothing_is_ready, routes_of
from toolkit.configuration.tokens import TokenDigest
from toolkit.persistence import dead_letters, saga_log
from toolkit.persistence.database import Database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/payment.db")
    await database.create_tables()
    async with database.transaction() as session:
        connection = await session.connection()
        entries = [*fulfilled_order("order-1"), *paid_order("order-2")]
        await saga_log.append(
            connection, [replace(entry, emitted_body="{}") for entry in entries if entry.service == "payment"]
        )
        await dead_letters.add(connection, [dead_letter_of("order-1"), dead_letter_of("order-2")])
    yield database
    await database.close()


@pytest.fixture
def client(database: Database) -> Client:
    def build(token: str | None = TOKEN, **facts: Any) -> httpx.AsyncClient:
        digest = TokenDigest.of(token) if token else None
        routes = routes_of(database, nothing_is_ready, digest)
        transport = httpx.ASGITransport(Starlette(routes=routes))
        return httpx.AsyncClient(transport=transport, base_url="http://payment", **facts)

    return build


@pytest.fixture
def operator(client: Client) -> httpx.AsyncClient:
    return client(headers=SHOWING)
