"""The page `/attention` shows dead letters, contradictions and services that are not ready."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import httpx
import uvicorn
from starlette.applications import Starlette

from services.payment.app import app as payment
from tests.console.one_service import SECRET, add_dead_letters, local_console
from tests.orders import FAILED, entry
from toolkit.api import Access, ApiContext, api_routes
from toolkit.client.http_client import HttpClient
from toolkit.clock import SystemClock
from toolkit.configuration.tokens import TokenDigest
from toolkit.declaration.contract import Contract
from toolkit.persistence import saga_log
from toolkit.persistence.database import Database
from toolkit.persistence.saga_log import Entry


async def test_attention_shows_the_reason_of_dead_letters(local: httpx.AsyncClient, database: Database):
    await add_dead_letters(database, "schema")

    page = (await local.get("/attention")).text

    assert "schema: nothing to be done" in page
    assert 'href="/sagas/order-1"' in page
    assert "1 dead letter of" in page


async def test_attention_reports_that_nothing_is_stuck(local: httpx.AsyncClient):
    assert "Nothing needs attention" in (await local.get("/attention")).text


async def test_attention_reports_services_that_are_not_ready(database: Database):
    async def readiness() -> dict[str, bool]:
        return {"broker": False, "database": True, "relay": True}

    context = ApiContext(
        service=payment, contract=Contract.of(payment), database=database, readiness=readiness,
        queue="saga.payment", clock=SystemClock(),
    )  # fmt: skip
    service = Starlette(routes=api_routes(context, Access("payment", token=TokenDigest.of(SECRET.get_secret_value()))))
    server = uvicorn.Server(uvicorn.Config(service, log_config=None))
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve(sockets=[listener]))

    without_broker = await attention_of("payment", f"http://127.0.0.1:{listener.getsockname()[1]}")
    unreachable = await attention_of("payment", "http://127.0.0.1:1")
    server.should_exit = True
    await serving

    assert "payment is not ready</strong>: no broker." in without_broker
    assert "payment is unreachable" in unreachable
    assert "Nothing needs attention" not in without_broker + unreachable


async def attention_of(name: str, url: str) -> str:
    """Return the page of a console of this one service."""
    service = HttpClient(name, url, token=SECRET)
    async with local_console([service]) as browser:
        page = (await browser.get("/attention")).text
    await service.close()
    return page


async def test_a_contradiction_is_shown_with_its_reason(local: httpx.AsyncClient, database: Database):
    ended = entry("order-8", "payment", "process_payment", "ended", FAILED, "SagaEnded", position=None)
    await write(database, replace(ended, error="still completed in a saga that ended failed"))

    page = (await local.get("/attention")).text

    assert 'id="contradiction-payment-process_payment-order-8"' in page
    assert "still completed in a saga that ended failed" in page
    assert "Nothing needs attention" not in page


async def test_the_end_of_a_saga_contradicts_nothing(local: httpx.AsyncClient, database: Database):
    await write(database, entry("order-8", "payment", "process_payment", "ended", FAILED, "SagaEnded", position=None))

    page = (await local.get("/attention")).text

    assert 'id="contradictions"' not in page
    assert "Nothing needs attention" in page


async def write(database: Database, log_entry: Entry) -> None:
    async with database.transaction() as session:
        await saga_log.append(await session.connection(), [log_entry])
