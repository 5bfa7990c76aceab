"""What the tests of the command line share: the command, and services' logs in databases and behind HTTP, all real."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from typer.testing import CliRunner, Result

from tests.orders import fulfilled_order, paid_order, refused_order
from tests.servers import Server
from toolkit.api import Access, ApiContext, api_routes, application
from toolkit.cli.app import app
from toolkit.cli.service_discovery import find_service
from toolkit.clock import SystemClock
from toolkit.configuration.tokens import TokenDigest
from toolkit.declaration.contract import Contract
from toolkit.persistence import saga_log
from toolkit.persistence.database import Database
from toolkit.persistence.saga_log import Entry

SERVICES = ("inventory", "payment", "shipping", "notification")
ORDERS = [*fulfilled_order("order-1"), *paid_order("order-2"), *refused_order("order-3")]
PROJECT = Path(__file__).parents[2]
#: What the APIs that the tests serve want to be shown.
TOKEN = "open-sesame-now"

Saga = Callable[..., Result]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory, and an environment that sets nothing else."""
    for name in [name for name in os.environ if name.startswith(("SAGA_", "PAYMENT_GATEWAY_"))]:
        if not name.startswith("SAGA_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SAGA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(PROJECT)
    return tmp_path / "data"


@pytest.fixture
def environment(data_dir: Path, rabbitmq: Server, prefix: str) -> dict[str, str]:
    """The settings of a service that runs on the tests' broker, with an exchange of its own."""
    return {"SAGA_BROKER_URL": rabbitmq.url, "SAGA_EXCHANGE": prefix, "SAGA_HTTP_PORT": "0", "SAGA_LOG_FORMAT": "json"}


@pytest.fixture
def saga(data_dir: Path) -> Saga:
    """The command, run in this process: it reads, and starts nothing."""
    runner = CliRunner()
    return lambda *arguments, **options: runner.invoke(app, arguments, **options)


@pytest.fixture
def saga_process(data_dir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command in a process of its own, as people run it."""
    return lambda *arguments, **environment: subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=90, env=os.environ | environment, check=False
    )


@pytest.fixture
def logs(data_dir: Path) -> dict[str, str]:
    """The four services' databases, with a fulfilled, a pending and a refused order; their URLs by name."""
    urls = {name: f"sqlite:///{data_dir}/{name}.db" for name in SERVICES}
    for name, url in urls.items():
        entries = [replace(entry, emitted_body="{}") for entry in ORDERS if entry.service == name]
        asyncio.run(write_log(url, entries))
    return urls


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serve a service's API upon its database, with its broker or without; return where."""
    with ExitStack() as running:
        yield lambda name, url, **ready: running.enter_context(served(name, url, **ready))


def command(*arguments: str) -> list[str]:
    """Return the command line that runs `saga` with these arguments."""
    return [sys.executable, "-c", "from toolkit.cli import main; main()", *arguments]


async def write_log(url: str, entries: list[Entry]) -> None:
    """Make a service's tables, and append to its saga log."""
    database = Database(url)
    await database.create_tables()
    async with database.transaction() as session:
        await saga_log.append(await session.connection(), entries)
    await database.close()


@contextmanager
def served(name: str, url: str, **ready: bool) -> Iterator[str]:
    """Run a service's API on a free port. It listens from the beginning, so nobody has to wait for it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(_api(name, url, ready), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def _api(name: str, url: str, ready: dict[str, bool]) -> Starlette:
    database = Database(url)

    async def readiness() -> dict[str, bool]:
        return {"broker": True, "database": True, "relay": True} | ready

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await database.close()

    service = find_service(f"services.{name}.app:app")
    site = ApiContext(
        service=service, contract=Contract.of(service), database=database, readiness=readiness,
        queue=f"saga.{name}", clock=SystemClock(),
    )  # fmt: skip
    return application(api_routes(site, Access(name, token=TokenDigest.of(TOKEN))), lifespan, names=())


def service_options(urls: dict[str, str]) -> list[str]:
    """Return the options that name these services."""
    return [f"--service={name}={url}" for name, url in urls.items()]
