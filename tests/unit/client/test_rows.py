"""A service's rows are the same objects over HTTP and from its database."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from services.payment.app import app as payment
from tests.cli.conftest import ORDERS, TOKEN, served, write_log
from tests.conftest import PostgresDatabases
from tests.orders import FAILED, PENDING, entry
from tests.unit.api.payment_api import write_backlog
from toolkit.client import DatabaseClient, HttpClient, ServiceClient
from toolkit.declaration.contract import Contract
from toolkit.errors import UnreachableError
from toolkit.operations.search import Search
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import Selection

ADA = Operator("ada@desk", "the gateway is back")


@pytest.fixture(params=["sqlite", "postgresql, in a schema"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The payment's database, with rows in each table."""
    url = f"sqlite:///{tmp_path}/payment.db"
    if request.param != "sqlite":
        databases: PostgresDatabases = request.getfixturevalue("kept_databases")
        asyncio.run(databases.empty())
        url = f"{asyncio.run(databases.url('rows'))}?schema=workflow"
    gone = entry("order-8", "payment", "charge_card", "completed", PENDING, "InventoryReserved")
    odd = entry("order-9", "payment", "process_payment", "ended", FAILED, "SagaEnded", position=None)
    odd = replace(odd, error="still completed in a saga that ended failed")
    asyncio.run(write_log(url, [*(each for each in ORDERS if each.service == "payment"), gone, odd]))
    asyncio.run(write_backlog(url))
    return url


async def rows_of(client: ServiceClient) -> dict[str, Any]:
    """Return all rows of a service, by their kind, after an operator's change."""
    everything = Selection()
    dead_letters = await client.dead_letters(everything, limit=10)
    found = {
        "log": await client.entries(),
        "search": await client.search(Search(), limit=10),
        "saga": await client.saga("order-2"),
        "dead letters": dead_letters,
        "dead letter": await client.dead_letter(dead_letters[0].id),
        "groups": await client.groups(),
        "outcomes": await client.redrive(everything, ADA, dry_run=True),
        "overdue": await client.overdue(limit=10),
        "contradictions": await client.contradictions(limit=10),
        "undeclared steps": await client.undeclared_steps(),
        "outbox": await client.outbox(limit=10),
        "audit": await client.audit(limit=10),
    }
    await client.close()
    return found


async def abort_and_read(client: DatabaseClient) -> tuple[Any, dict[str, Any]]:
    return await client.abort("order-2", ADA), await rows_of(client)


def test_both_clients_return_the_same_rows(url: str):
    in_database = DatabaseClient("payment", url, contract=lambda: Contract.of(payment), declared=lambda: payment)
    aborted, from_database = asyncio.run(abort_and_read(in_database))
    with served("payment", url) as address:
        over_http = asyncio.run(rows_of(HttpClient("payment", address, token=SecretStr(TOKEN))))

    assert aborted.rows[0].outcome == "aborted"
    assert all(from_database.values())
    assert over_http == from_database


@contextmanager
def answering(row: dict[str, Any]) -> Iterator[str]:
    """Run an API that lists this overdue step."""

    async def overdue(_: Request) -> JSONResponse:
        return JSONResponse({"service": "payment", "overdue": [row]})

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=[Route("/overdue", overdue)]), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"saga_id": "order-2", "step": "pay"}, r"returns rows without 'saga_type': is it an older version\?"),
        ({"saga_id": "order-2", "since": "yesterday"}, "returns rows that can't be read: .*yesterday"),
    ],
)
async def test_unreadable_rows_are_reported_as_such(row: dict[str, Any], fault: str):
    with answering(row) as address:
        client = HttpClient("payment", address)
        with pytest.raises(UnreachableError, match=fault):
            await client.overdue(limit=10)
        await client.close()
