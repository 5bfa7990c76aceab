"""What tests do with a browser's pages: watch them, read their forms, place orders that fail."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from playwright.sync_api import Page

from services.events import OrderCreated
from tests.console.shop import Shop
from toolkit.declaration.events import documented_example

AQ = {"shipping_address": documented_example(OrderCreated)["shipping_address"] | {"country": "AQ"}}
BOUNCES = {"customer_email": "nobody@bounce.example"}


class Watched:
    """A page with its errors and its requests to other sites; errors that contain a text of `expected` are left out."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.expected: list[str] = []
        self._home = urlsplit(url).netloc
        self._errors: list[str] = []
        self._foreign: list[str] = []
        self._is_strict = True
        page.on("console", lambda message: self._errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        page.context.on("request", lambda request: self._look(request.url))

    def allow_other_sites(self) -> None:
        """Ignore requests to other sites: the test itself leads there."""
        self._is_strict = False

    def report(self) -> tuple[list[str], list[str]]:
        """Return the unexpected errors, and the requests to other sites."""
        errors = [each for each in self._errors if not any(part in each for part in self.expected)]
        return errors, self._foreign if self._is_strict else []

    def _look(self, url: str) -> None:
        if urlsplit(url).netloc != self._home and not url.startswith(("data:", "about:")):
            self._foreign.append(url)


Watch = Callable[..., Watched]


def form_of(page: Page, action: str) -> dict[str, str]:
    """Return the fields of a page's form."""
    inputs = page.locator(f"form[action='{action}'] input").all()
    return {str(each.get_attribute("name")): each.input_value() for each in inputs}


def same_origin(shop: Shop) -> dict[str, str]:
    """Return the headers of a form that the console's own page submits."""
    return {"Origin": shop.url, "Sec-Fetch-Site": "same-origin"}
