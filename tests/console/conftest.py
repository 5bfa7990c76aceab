"""A console of one service for requests; the shop with its console and a browser for scenarios, one per module.

Each page of a scenario is watched: an error in its console, or a request to another site, fails the test.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pydantic import SecretStr

from services.payment.app import app as payment
from tests.browser import browser as browser
from tests.console.background import Background
from tests.console.browsers import BOUNCES, Watched
from tests.console.one_service import SECRET, local_console
from tests.console.shop import TOKEN, Shop
from tests.servers import Server
from toolkit import Settings
from toolkit.client.database_client import DatabaseClient
from toolkit.clock import SystemClock
from toolkit.console.app import application
from toolkit.declaration.contract import Contract
from toolkit.ids import new_id
from toolkit.persistence.database import Database

#: Other tests run on the machine at the same time.
expect.set_options(timeout=15_000)


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    """An event loop for asynchronous helpers."""
    with Background() as background:
        yield background


@pytest.fixture(scope="module")
def shop(rabbitmq: Server, tmp_path_factory: pytest.TempPathFactory, background: Background) -> Iterator[Shop]:
    """The four services and the console."""
    shop = Shop(rabbitmq.url, tmp_path_factory.mktemp("shop"), f"test-{new_id()[-12:]}", background)
    try:
        shop.open()
        yield shop
    finally:
        shop.close()


@pytest.fixture
def watched(shop: Shop, browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Open pages in contexts of their own; after the test, none has an error or a request to another site."""
    opened: list[tuple[BrowserContext, Watched]] = []

    def watch(**options: Any) -> Watched:
        context = browser.new_context(
            **({"base_url": shop.url, "viewport": {"width": 1280, "height": 900}, "locale": "en"} | options)
        )
        watched = Watched(context.new_page(), options.get("base_url", shop.url))
        opened.append((context, watched))
        return watched

    yield watch
    reports = [watched.report() for _, watched in opened]
    for context, _ in opened:
        context.close()
    assert reports == [([], [])] * len(opened)


@pytest.fixture(scope="module")
def refused(shop: Shop) -> str:
    """An order with retries that was refused and compensated: its page has the most to show."""
    order = shop.place(order_id="order-of-a-thousand-troubles", payment_method="card_flaky", **BOUNCES)
    shop.wait_for_end(order)
    return order


@pytest.fixture(scope="module")
def fulfilled(shop: Shop) -> str:
    """An order that was fulfilled at the third attempt."""
    order = shop.place(payment_method="card_flaky", customer_email="grace.secret@shop.example")
    shop.wait_for_end(order)
    return order


@pytest.fixture
def page(watched: Callable[..., Watched]) -> Page:
    """A page of a browser with usual settings."""
    return watched().page


@pytest.fixture
def other_console(shop: Shop, background: Background) -> Iterator[Callable[..., str]]:
    """Start another console of the same services, in this process."""
    servers: list[tuple[uvicorn.Server, Future[None]]] = []

    def start(*, token: str = TOKEN, must_sign_in: bool = False) -> str:
        app = application(shop.clients(token), token=SecretStr(token), must_sign_in=must_sign_in)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        servers.append((server, background.start(server.serve(sockets=[listener]))))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, serving in servers:
        server.should_exit = True
        serving.result(10)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """The empty database of the payment service."""
    database = Database(Settings(data_dir=tmp_path, broker_url="embedded").database_for("payment"))
    await database.create_tables()
    yield database
    await database.close()


@pytest.fixture
async def payment_client(database: Database) -> AsyncIterator[DatabaseClient]:
    """The console's client of that database."""
    client = DatabaseClient(
        "payment",
        database.url,
        queue="saga.payment",
        declared=lambda: payment,
        contract=lambda: Contract.of(payment),
        clock=SystemClock(),
    )
    yield client
    await client.close()


@pytest.fixture
async def local(payment_client: DatabaseClient) -> AsyncIterator[httpx.AsyncClient]:
    """A browser on the console's own machine."""
    async with local_console([payment_client]) as browser:
        yield browser


@pytest.fixture
async def remote(payment_client: DatabaseClient) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of a console that requires signing in."""
    app = application([payment_client], token=SECRET, must_sign_in=True, names=("console.example",))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console.example") as browser:
        yield browser
