"""Keyboard, narrow screens, colours, motion, axe and page weight in a real browser, beside four running services."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.console.browsers import Watch
from tests.console.shop import Shop

#: The limit for a page with all that it loads, compressed.
MOST_BYTES = 150 * 1024


ADDRESSES = ("/", "/sagas", "/attention", "/choreography", "/attention/redrive?service=notification&reason_is=none")


def test_a_keyboard_alone_is_enough(shop: Shop, refused: str, page: Page):
    page.goto("/")
    press = page.keyboard.press

    press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    press("Enter")
    expect(page.locator("main")).to_be_focused()
    press("Shift+Tab")
    press("Shift+Tab")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type(refused)
    press("Enter")
    expect(page).to_have_url(f"{shop.url}/sagas/{refused}?type=order")
    tab_to(page, "Nudge")
    press("Enter")
    press("Tab")
    page.keyboard.type("by keyboard")
    press("Tab")
    press("Enter")
    expect(page.get_by_role("status").filter(has_text="Nudged")).to_contain_text("has ended")


def tab_to(page: Page, text: str) -> None:
    """Press Tab until an element with that text has the focus; every focus on the way has to be visible."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            return
        assert page.evaluate(
            "getComputedStyle(document.activeElement).outlineStyle != 'none' || !!document.activeElement.closest('svg')"
        )
    raise AssertionError(f"nothing with the text {text!r} got the focus")


def test_no_page_scrolls_sideways_at_320_pixels(shop: Shop, refused: str, watched: Watch):
    page = watched(viewport={"width": 320, "height": 640}).page

    for address in (*ADDRESSES, f"/sagas/{refused}", "/sagas?q=" + "long" * 40):
        page.goto(address)
        expect(page.locator("h1")).to_be_visible()
        widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths == [320, 320], address


def test_pages_follow_the_preferred_color_scheme(watched: Watch):
    backgrounds = {}
    for scheme in ("light", "dark"):
        page = watched(color_scheme=scheme).page
        page.goto("/")
        backgrounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")

    brightness = {scheme: sum(map(int, re.findall(r"\d+", colour))) for scheme, colour in backgrounds.items()}
    assert brightness["light"] > 600
    assert brightness["dark"] < 100


def test_reduced_motion_stops_all_animations(watched: Watch):
    page = watched(reduced_motion="reduce").page
    page.goto("/")

    assert page.evaluate("document.getAnimations().length") == 0


#: The dark pages differ in their colours only.
_RULES: dict[str, dict[str, Any]] = {"light": {}, "dark": {"runOnly": ["color-contrast"]}}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violations(shop: Shop, refused: str, watched: Watch, scheme: str):
    shop.dead_letter(2)
    page = watched(color_scheme=scheme, bypass_csp=True).page

    found = {}
    for address in (
        *ADDRESSES[:-1],
        "/attention/redrive?service=notification&reason_is=retries+spent",
        f"/sagas/{refused}",
    ):
        page.goto(address)
        expect(page.locator("h1")).to_be_visible()
        page.get_by_role("button", name="Pause").click() if page.locator("#pause").count() else None
        page.evaluate("[...document.querySelectorAll('details')].slice(-4).forEach((each) => { each.open = true; })")
        violations = Axe().run(page, options=_RULES[scheme]).response["violations"]
        serious = [each for each in violations if each["impact"] in ("serious", "critical")]
        found[address] = [
            (each["id"], each["nodes"][0]["html"], each["nodes"][0]["failureSummary"]) for each in serious
        ]

    assert {address: each for address, each in found.items() if each} == {}


def test_no_two_texts_of_a_drawing_overlap(shop: Shop, refused: str, page: Page):

    for address in ("/choreography", f"/sagas/{refused}"):
        page.goto(address)
        assert page.evaluate(_OVERLAPS) == []


_OVERLAPS = """() => [...document.querySelectorAll("svg")].flatMap((svg) => {
  const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  const cross = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  return texts.flatMap(([one, a], n) => texts.slice(n + 1).filter(([, b]) => cross(a, b)).map(([two]) => [one, two]));
})"""


def test_no_page_costs_more_than_150_kilobytes(shop: Shop, refused: str, watched: Watch):

    page = watched().page
    session: Any = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    sizes: list[int] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(int(event["encodedDataLength"])))

    for address in (*ADDRESSES, f"/sagas/{refused}"):
        sizes.clear()
        page.goto(address, wait_until="load")
        assert 25_000 < sum(sizes) < MOST_BYTES, address
