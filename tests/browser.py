"""A real browser, for the tests of the console and of the documentation's site."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright


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
