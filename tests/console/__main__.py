"""Make the screenshots of the docs from a real run: `make screenshots`."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from PIL import Image  # comes with matplotlib, which the benchmark draws with
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from services.events import OrderCreated
from tests.console.background import Background
from tests.console.shop import Shop
from toolkit.declaration.events import documented_example
from toolkit.ids import new_id

_WIDTH, _HIGHEST = 1280, 1_100
_NARROW, _NARROW_HEIGHT = 320, 900
_COLOURS = 255
_AQ = {"shipping_address": documented_example(OrderCreated)["shipping_address"] | {"country": "AQ"}}
_BOUNCES = {"customer_email": "nobody@bounce.example"}


def main() -> None:
    """Place orders in a shop, and make a screenshot of each page in light and dark, and one of a narrow page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("docs/images/console"))
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    with _shop() as shop, _browser() as browser:
        contexts = {scheme: _context(browser, shop, scheme) for scheme in ("light", "dark")}
        for pages in _scenes(shop):
            for scheme, context in contexts.items():
                for name, address in pages.items():
                    _shoot(context.new_page(), address, directory / f"{name}-{scheme}.png")
        narrow = browser.new_context(base_url=shop.url, viewport={"width": _NARROW, "height": _NARROW_HEIGHT})
        _shoot(narrow.new_page(), "/sagas/order-1001", directory / "narrow.png", height=_NARROW_HEIGHT)


def _context(browser: Browser, shop: Shop, scheme: Literal["light", "dark"]) -> BrowserContext:
    return browser.new_context(
        base_url=shop.url, viewport={"width": _WIDTH, "height": 860}, color_scheme=scheme, reduced_motion="reduce"
    )


@contextmanager
def _shop() -> Iterator[Shop]:
    url = os.environ.get("SAGA_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
    with tempfile.TemporaryDirectory() as directory, Background() as background:
        shop = Shop(url, Path(directory), f"pictures-{new_id()[-12:]}", background)
        try:
            shop.open()
            yield shop
        finally:
            shop.close()


@contextmanager
def _browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


def _scenes(shop: Shop) -> Iterator[dict[str, str]]:
    """Yield the pages: first with all services running, then with one stopped and a thousand dead letters."""
    plots = [{}] * 40 + [{"payment_method": "card_declined"}] * 6 + [_AQ] * 4 + [_BOUNCES] * 3
    placed = shop.place_all([*plots, {"order_id": "order-1001", "payment_method": "card_flaky"} | _BOUNCES])
    for order in placed:
        shop.wait_for_end(order)
    yield {"saga": "/sagas/order-1001", "choreography": "/choreography"}
    shop.dead_letter(1_000)
    shop.kill("shipping")
    stuck = shop.place_all([{"order_id": f"order-{number}"} for number in (1042, 1043, 1044)])
    shop.wait_till_overdue("payment", stuck)
    yield {
        "overview": "/",
        "sagas": "/sagas",
        "unreachable": "/sagas/order-1042",
        "attention": "/attention",
        "redrive": "/attention/redrive?service=notification&reason_is=retries+spent&step=send_cancellation_notice",
    }


def _shoot(page: Page, address: str, path: Path, *, height: int | None = None) -> None:
    page.goto(address)
    expect(page.locator("h1")).to_be_visible()
    page.wait_for_timeout(1_000)  # until the live part is loaded
    whole = int(page.evaluate("document.documentElement.scrollHeight"))
    width = page.viewport_size["width"] if page.viewport_size else _WIDTH
    page.set_viewport_size({"width": width, "height": height or min(whole, _HIGHEST)})
    page.screenshot(path=path)
    page.close()
    _squeeze(path)


def _squeeze(path: Path) -> None:
    """Reduce the colours to a page's own; most of a picture's bytes are smoothed edges of text."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(_COLOURS, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
