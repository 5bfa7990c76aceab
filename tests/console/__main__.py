"""Shoot the pictures of the console's pages that stand in the docs, from a real run: `make screenshots`."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from services.events import OrderCreated
from tests.console.background import Background
from tests.console.shop import Shop
from toolkit.events import documented_example
from toolkit.ids import new_id

_WIDTH, _NARROW = 1280, 320
_AQ = {"shipping_address": documented_example(OrderCreated)["shipping_address"] | {"country": "AQ"}}
_BOUNCES = {"customer_email": "nobody@bounce.example"}


def main() -> None:
    """Fill a shop with orders, and shoot each page in light and dark, and one for a telephone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("docs/images/console"))
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    with _shop() as shop, _browser() as browser:
        pages = _fill(shop)
        for scheme in ("light", "dark"):
            context = browser.new_context(
                base_url=shop.url,
                viewport={"width": _WIDTH, "height": 860},
                color_scheme=scheme,
                reduced_motion="reduce",
            )
            for name, address in pages.items():
                _shoot(context.new_page(), address, directory / f"{name}-{scheme}.png")
        narrow = browser.new_context(base_url=shop.url, viewport={"width": _NARROW, "height": 720})
        _shoot(narrow.new_page(), pages["saga"], directory / "narrow.png", whole=False)


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


def _fill(shop: Shop) -> dict[str, str]:
    """Have all kinds of orders, letters, and a service that is away; return the pages to shoot."""
    placed = shop.place_all([{}] * 40 + [{"payment_method": "card_declined"}] * 6 + [_AQ] * 4 + [_BOUNCES] * 3)
    (refused,) = shop.place_all([{"order_id": "order-1001", "payment_method": "card_flaky"} | _BOUNCES])
    for order in (*placed, refused):
        shop.wait_for_end(order)
    shop.bury(1_000)
    shop.kill("shipping")
    (stuck, *_) = shop.place_all([{"order_id": f"order-{number}"} for number in (1042, 1043, 1044)])
    return {
        "overview": "/",
        "sagas": "/sagas",
        "saga": f"/sagas/{refused}",
        "unreachable": f"/sagas/{stuck}",
        "attention": "/attention",
        "redrive": "/attention/redrive?service=notification&reason_is=retries+spent&step=send_cancellation_notice",
        "choreography": "/choreography",
    }


def _shoot(page: Page, address: str, path: Path, *, whole: bool = True) -> None:
    page.goto(address)
    expect(page.locator("h1")).to_be_visible()
    if address.startswith(("/sagas/order-1042", "/attention")) and "redrive" not in address:
        expect(page.get_by_text("Overdue").first).to_be_visible(timeout=15_000)
        page.wait_for_timeout(3_000)  # till the steps are overdue, and the picture has it
    page.wait_for_timeout(1_000)  # till the live part came
    height = min(int(page.evaluate("document.documentElement.scrollHeight")), 1_500)
    page.set_viewport_size({"width": page.viewport_size["width"] if page.viewport_size else _WIDTH, "height": height})
    page.screenshot(path=path, full_page=False) if whole else page.screenshot(path=path)
    page.close()


if __name__ == "__main__":
    main()
