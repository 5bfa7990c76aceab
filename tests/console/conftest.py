"""One shop and one browser for all scenarios, and a page for each, on which nothing may go wrong unnoticed."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from pydantic import SecretStr

from tests.console.background import Background
from tests.console.shop import TOKEN, Shop
from tests.servers import Server
from toolkit.console.app import application
from toolkit.ids import new_id

#: A machine that runs other tests beside may take its time.
expect.set_options(timeout=15_000)


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    """A loop for what is asynchronous."""
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no Chromium: as root `make test` installs it, else `sudo apt-get install chromium` does")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Watched:
    """A page, and what its browser complained of or asked elsewhere; `forgiven` are the complaints that are meant."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.forgiven: list[str] = []
        self._home = urlsplit(url).netloc
        self._complaints: list[str] = []
        self._elsewhere: list[str] = []
        self._counts_outside = True
        page.on("console", lambda said: self._complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self._complaints.append(str(error)))
        page.context.on("request", lambda request: self._look(request.url))

    def outside_is_meant(self) -> None:
        """Forget whom it asked elsewhere: the test itself leads there."""
        self._counts_outside = False

    def verdict(self) -> tuple[list[str], list[str]]:
        """Return the complaints that nobody expected, and what was asked of others."""
        complaints = [each for each in self._complaints if not any(part in each for part in self.forgiven)]
        return complaints, self._elsewhere if self._counts_outside else []

    def _look(self, url: str) -> None:
        if urlsplit(url).netloc != self._home and not url.startswith(("data:", "about:")):
            self._elsewhere.append(url)


@pytest.fixture
def watched(shop: Shop, browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Open pages in contexts of their own; after the test, none of them has complained, or asked anybody else."""
    opened: list[tuple[BrowserContext, Watched]] = []

    def watch(**options: Any) -> Watched:
        context = browser.new_context(
            **({"base_url": shop.url, "viewport": {"width": 1280, "height": 900}, "locale": "en"} | options)
        )
        watched = Watched(context.new_page(), options.get("base_url", shop.url))
        opened.append((context, watched))
        return watched

    yield watch
    verdicts = [watched.verdict() for _, watched in opened]
    for context, _ in opened:
        context.close()
    assert verdicts == [([], [])] * len(opened)


@pytest.fixture
def page(watched: Callable[..., Watched]) -> Page:
    """A page of an ordinary browser."""
    return watched().page


@pytest.fixture
def other_console(shop: Shop, background: Background) -> Iterator[Callable[..., str]]:
    """Start another console of the same services, on this machine, in this process."""
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
