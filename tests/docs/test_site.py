"""The documentation as a site: built without a warning, complete, and without anything from other servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, expect

import toolkit
import toolkit.client
import toolkit.testing
from tests.browser import browser as browser
from tests.console.browsers import Watched
from tests.docs.pages import DOCS, PROJECT, blocks

#: Other tests run on the machine at the same time.
expect.set_options(timeout=60_000)

#: What a page loads: addresses of scripts and images, and of styles.
SOURCES = re.compile(r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=\"?([^\">\s]+)")
STYLES = re.compile(r"<link\b(?=[^>]*\brel=\"?(?:stylesheet|icon|preload|preconnect))[^>]*?\bhref=\"?([^\">\s]+)")
OF_STYLES = re.compile(r"(?:@import|url\()\s*[\"']?((?:https?:|//)[^\"')]*)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(directory)]
    variables = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return directory


@pytest.fixture(scope="module")
def texts(site: Path) -> dict[Path, str]:
    """The pages; without that for unknown addresses, whose links begin at the server's root."""
    return {path: path.read_text() for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def test_every_page_is_in_the_navigation(site: Path, texts: dict[Path, str]):
    here = site / "reference" / "cli.html"
    sidebar = texts[here].partition("md-sidebar--primary")[2].partition("md-sidebar--secondary")[0]
    tabs = texts[here].partition("md-tabs__list")[2].partition("</ul>")[0]

    built = {(site / path.relative_to(DOCS)).with_suffix(".html") for path in DOCS.rglob("*.md")}
    linked = {(here.parent / link).resolve() for link in re.findall(r'href="?([^">#\s]+)', sidebar + tabs)}

    assert {path.parent / path.name.replace("README", "index") for path in built} - linked - {here} == set()


def test_no_page_loads_from_another_server(site: Path, texts: dict[Path, str]):
    loaded = {address for text in texts.values() for kind in (SOURCES, STYLES) for address in kind.findall(text)}

    assert {"assets/style.css", "assets/icon.svg"} <= loaded
    assert [address for address in loaded if urlsplit(address).netloc] == []
    assert [
        OF_STYLES.findall(path.read_text()) for path in site.rglob("*.css") if OF_STYLES.search(path.read_text())
    ] == []


def test_every_link_and_image_leads_somewhere(site: Path, texts: dict[Path, str]):
    anchors = {path: set(re.findall(r"\bid=\"?([^\">\s]+)", text)) for path, text in texts.items()}
    lost = []
    for page, text in texts.items():
        for link in set(re.findall(r"\b(?:href|src)=\"?([^\">\s]+)", text)):
            parts = urlsplit(link)
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            is_known = not parts.fragment or target not in anchors or unquote(parts.fragment) in anchors[target]
            if not (parts.scheme or parts.netloc or (target.exists() and is_known)):
                lost.append(f"{page.relative_to(site)}: {link}")

    assert lost == []


@pytest.mark.parametrize("module", [toolkit, toolkit.client, toolkit.testing], ids=lambda module: module.__name__)
def test_api_reference_has_every_public_name(site: Path, texts: dict[Path, str], module):
    page = texts[site / "reference" / "api.html"]

    documented = set(re.findall(rf"<h3 id=\"?{re.escape(module.__name__)}\.(\w+)[\" ]", page))

    assert documented == set(module.__all__)


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site, on a server of its own."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("scheme", "palette"), [("light", "default"), ("dark", "slate")])
def test_a_browser_draws_diagrams_and_finds_words(browser: Browser, address: str, scheme: str, palette: str):
    context = browser.new_context(base_url=address, color_scheme=scheme, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(90_000)  # the diagrams' script has 2.5 MB, and the machine may be busy
    watched = Watched(page := context.new_page(), address)

    page.goto("/explanation/protocol.html")
    expect(page.locator("div.mermaid")).to_have_count(len(blocks("mermaid", DOCS / "explanation" / "protocol.md")))
    fitted = page.locator("div.mermaid").first.bounding_box()
    page.locator("div.mermaid").first.click()
    assert page.locator("div.mermaid").first.bounding_box()["width"] > 3 * fitted["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == 1280, "a large diagram scrolls in a frame"
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", palette)
    page.get_by_role("textbox", name="Search").press_sequentially("idempotency")
    expect(page.locator(".md-search-result__item").first).to_be_visible()

    context.close()
    assert watched.report() == ([], [])
