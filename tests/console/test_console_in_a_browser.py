"""The console in a real browser, beside four running services: what an operator looks for is found, and done once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from services.events import OrderCreated
from tests.console.background import Background
from tests.console.conftest import Watched
from tests.console.shop import TOKEN, Shop
from toolkit.declaration.events import documented_example

Watch = Callable[..., Watched]

#: As many bytes as a page may cost, with all that it loads, compressed.
MOST_BYTES = 150 * 1024
AQ = {"shipping_address": documented_example(OrderCreated)["shipping_address"] | {"country": "AQ"}}
BOUNCES = {"customer_email": "nobody@bounce.example"}
ADDRESSES = ("/", "/sagas", "/attention", "/choreography", "/attention/redrive?service=notification&reason_is=none")


@pytest.fixture(scope="module")
def refused(shop: Shop) -> str:
    """An order that took several attempts, and was undone in the end: its page has the most to show."""
    order = shop.place(order_id="order-of-a-thousand-troubles", payment_method="card_flaky", **BOUNCES)
    shop.wait_for_end(order)
    return order


@pytest.fixture(scope="module")
def fulfilled(shop: Shop) -> str:
    """An order that went well, at the third attempt."""
    order = shop.place(payment_method="card_flaky", customer_email="grace.secret@shop.example")
    shop.wait_for_end(order)
    return order


# -- one order's story ---------------------------------------------------------------------------------------------


def test_an_order_is_watched_live_from_its_beginning_to_its_compensation(shop: Shop, page: Page):
    order = "order-watched-live"
    page.goto(f"/sagas/{order}")
    expect(page.get_by_text("No service knows this saga yet")).to_be_visible()

    shop.place(order_id=order, payment_method="card_flaky", **BOUNCES)

    expect(page.get_by_text(re.compile(r"attempt 1 of 4"))).to_be_visible()
    expect(page.locator("#sentence")).to_contain_text("refused")
    expect(page.locator("#sentence")).to_contain_text("Ended")
    for undone in ("reserve_inventory", "process_payment", "create_shipment"):
        expect(page.get_by_role("link", name=re.compile(rf"{undone}, ↩ undone"))).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("send_confirmation, ✗ refused"))).to_be_visible()
    expect(page.get_by_role("rowheader", name="↩ Way back")).to_be_visible()


def test_the_story_has_each_steps_events_and_its_retries(fulfilled: str, page: Page):
    page.goto(f"/sagas/{fulfilled}")

    expect(page.get_by_text("attempt 2 of 4 failed")).to_be_visible()
    page.get_by_role("link", name=re.compile("process_payment, ✓ done")).click()
    step = page.locator("[id='step-payment.process_payment']")
    step.locator("summary").click()
    expect(step.get_by_text("3 of 4")).to_be_visible()
    expect(step.get_by_label("Event in of process_payment")).to_contain_text('"total_amount"')
    expect(step.get_by_label("Event out of process_payment")).to_contain_text(fulfilled)
    expect(page.get_by_role("img", name=re.compile("Who told whom"))).to_be_visible()


def test_what_is_sensitive_is_masked(fulfilled: str, page: Page):
    page.goto(f"/sagas/{fulfilled}")
    page.locator("[id='step-inventory.reserve_inventory'] > summary").click()
    shown = page.content()
    raw = page.request.get(f"/sagas/{fulfilled}?format=json").text()

    expect(page.get_by_label("Event out of reserve_inventory")).to_contain_text("***")
    for secret in ("grace.secret", "12 St James", "Ada Lovelace"):
        assert secret not in shown
        assert secret not in raw


def test_an_orders_html_is_shown_as_text(shop: Shop, page: Page):
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    order = shop.place(customer_id=evil, payment_method=evil[:200], items=[{"sku": "TEA-POT", "quantity": 1}], **AQ)
    shop.wait_for_end(order)

    page.goto(f"/sagas/{order}")
    for step in page.locator(".parts details summary").all():
        step.click()

    expect(page.locator("#sentence")).to_contain_text("refused")
    assert page.locator("main img, main script").count() == 0
    assert dialogs == []
    for search in (evil, f'"><b>{evil}'):
        page.goto("/sagas")
        page.get_by_role("searchbox").fill(search)
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("<script>alert(2)")
    assert dialogs == []


def test_a_step_that_is_opened_stays_open_and_keeps_the_focus_while_the_page_lives_on(shop: Shop, page: Page):
    order = "order-open-and-focused"
    page.goto(f"/sagas/{order}")
    shop.place(order_id=order, payment_method="card_flaky")
    summary = page.locator("[id='step-inventory.reserve_inventory'] > summary")
    summary.focus()
    page.keyboard.press("Enter")

    expect(page.get_by_role("link", name=re.compile("send_confirmation, ✓ done"))).to_be_visible()

    expect(summary).to_be_focused()
    expect(page.get_by_label("Event out of reserve_inventory")).to_be_visible()


def test_the_story_is_to_be_had_as_json(shop: Shop, fulfilled: str, page: Page):
    page.goto(f"/sagas/{fulfilled}")

    page.get_by_role("link", name="Raw JSON").click()

    assert page.url.endswith("&format=json")
    timeline = page.request.get(page.url).json()
    assert timeline["state"] == "Completed"
    assert set(timeline["services"]) == {"inventory", "payment", "shipping", "notification"}
    assert httpx.get(f"{shop.url}/sagas/nobody?format=json", trust_env=False).status_code == 404


# -- finding -------------------------------------------------------------------------------------------------------


def test_an_order_is_found_in_two_clicks_by_its_id_or_an_events(shop: Shop, fulfilled: str, page: Page):
    event = shop.entries("payment", fulfilled)[0]["event_id"]

    for wanted in (fulfilled, event):
        page.goto("/")
        page.get_by_role("searchbox").fill(wanted)
        page.get_by_role("button", name="Find").click()
        expect(page).to_have_url(f"{shop.url}/sagas/{fulfilled}?type=order")

    page.get_by_role("searchbox").fill("order-of-nobody")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_text("No service knows")).to_be_visible()


def test_filters_and_pages_show_each_saga_once(shop: Shop, fulfilled: str, page: Page):
    failed = set(shop.place_all([AQ] * 30))
    for order in failed:
        shop.wait_for_end(order)

    page.goto("/sagas")
    page.get_by_label("State").select_option("Failed")
    page.get_by_role("button", name="Filter").click()
    listed = ids(page)
    pages = 1
    while page.get_by_role("link", name="Next page").count() and pages < 20:
        page.get_by_role("link", name="Next page").click()
        listed += ids(page)
        pages += 1

    assert pages >= 2
    assert len(listed) == len(set(listed))
    assert failed <= set(listed)
    assert fulfilled not in listed
    expect(page.get_by_role("link", name="First page")).to_be_visible()
    page.goto("/sagas?age=1d")
    expect(page.get_by_text("No saga is like that")).to_be_visible()
    page.goto("/sagas?step=process_payment&state=Completed")  # the step that moved last is the confirmation
    expect(page.get_by_text("No saga is like that")).to_be_visible()
    page.goto("/sagas?step=send_confirmation&state=Completed")
    completed = set(ids(page))
    assert completed
    assert not failed & completed


def ids(page: Page) -> list[str]:
    """Return the sagas that a list shows."""
    expect(page.locator("main table")).to_be_visible()
    return page.locator("main tbody th a").all_inner_texts()


# -- what is going on ----------------------------------------------------------------------------------------------


def test_the_overview_is_live_within_a_second(shop: Shop, page: Page):
    page.goto("/")
    took = []
    for _ in range(3):
        before = int(page.locator("#all-Completed").inner_text().replace(",", ""))
        order = shop.place()
        shop.wait_for_end(order)
        begun = time.monotonic()
        expect(page.locator("#all-Completed")).to_have_text(f"{before + 1:,}")
        took.append(time.monotonic() - begun)

    assert min(took) < 1
    expect(page.get_by_role("row", name=re.compile("payment ready"))).to_be_visible()


def test_a_page_that_is_paused_or_hidden_asks_nobody(shop: Shop, page: Page):
    page.goto("/")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    order = shop.place()
    shop.wait_for_end(order)

    page.wait_for_timeout(1_500)  # two beats of the page's own
    assert asked == []
    page.get_by_role("button", name="Resume").click()
    page.wait_for_event("request")


def test_the_choreography_shows_who_hears_what_and_how_much_of_it_there_is(fulfilled: str, page: Page):
    page.goto("/choreography")

    expect(page.locator("svg .label", has_text=re.compile(r"\d×")).first).to_be_visible()  # noqa: RUF001  # a sign
    row = page.get_by_role("row", name=re.compile("^process_payment external payment"))
    expect(row).to_contain_text("InventoryReserved")
    page.get_by_role("link", name="PaymentProcessed").click()
    page.locator("#event-PaymentProcessed > summary").click()
    expect(page.get_by_label("Schema of PaymentProcessed")).to_contain_text('"amount"')


# -- what needs somebody -------------------------------------------------------------------------------------------


def test_a_thousand_dead_letters_are_looked_at_and_redriven_once(shop: Shop, page: Page):
    orders = shop.dead_letter(1_000)
    page.goto("/attention")
    group = page.get_by_role("row", name=re.compile("retries spent"))
    expect(group).to_contain_text("1,000")
    expect(group).to_contain_text("send_cancellation_notice")

    group.get_by_role("link", name=re.compile("Redrive")).click()

    expect(page.locator("#outlook")).to_have_text("1,000 of 1,000 letters would be redriven.")
    assert shop.dead_letters() == 1_000
    button = page.get_by_role("button", name="Redrive 1,000 letters")
    button.click()  # without a reason the browser does not even send it
    expect(button).to_be_visible()
    page.get_by_label("Why?").fill("the mail server is back")
    fields = form_of(page, "/attention/redrive")
    button.dblclick()
    expect(page.locator("#job")).to_contain_text("Done: 1,000 of 1,000 letters redriven")
    expect(page.locator("#back")).to_contain_text("None has come back so far")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1_600)  # two beats of the page's own: what is over is not asked for again
    assert len(asked) <= 1
    again = page.request.post("/attention/redrive", form=fields | {"reason": "again"}, headers=same_origin(shop))
    assert again.url == page.url
    assert shop.dead_letters() == 0
    shop.wait_for_end(orders[0])
    shop.wait_for_end(orders[-1])
    assert len(shop.notes("notification", orders[0], "redriven")) == 1
    page.goto("/attention")
    expect(page.get_by_text("retries spent")).not_to_be_visible()


def test_a_letter_whose_saga_has_ended_is_refused_by_the_dry_run(shop: Shop, page: Page):
    (order,) = shop.dead_letter(1)
    page.goto(f"/sagas/{order}")
    page.get_by_role("link", name="Redrive…").click()
    page.get_by_label("Why?").fill("the mail server is back")
    page.get_by_role("button", name="Redrive 1 letter").click()
    expect(page.locator("#job")).to_contain_text("Done: 1 of 1")
    shop.wait_for_end(order)

    shop.dead_letter_again(order)
    page.goto(f"/attention/redrive?service=notification&saga={order}")

    expect(page.get_by_text("1 would be refused: the saga has ended")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Redrive"))).to_have_count(0)
    shop.drop(order)


def form_of(page: Page, action: str) -> dict[str, str]:
    """Return the fields of a form as the page has them."""
    inputs = page.locator(f"form[action='{action}'] input").all()
    return {str(each.get_attribute("name")): each.input_value() for each in inputs}


def same_origin(shop: Shop) -> dict[str, str]:
    """Return what a browser says of a form of our own page."""
    return {"Origin": shop.url, "Sec-Fetch-Site": "same-origin"}


# -- who may -------------------------------------------------------------------------------------------------------


def test_another_sites_form_is_refused(shop: Shop, refused: str, watched: Watch):
    watch = watched()
    watch.forgiven.append("403")
    watch.page.goto(f"/sagas/{refused}")
    fields = form_of(watch.page, "/nudge") | {"reason": "evil"}
    inputs = "".join(f"<input name='{name}' value='{value}'>" for name, value in fields.items())
    watch.page.route(
        "http://localhost:1/evil",
        lambda route: route.fulfill(
            body=f"<form id=f method=post action='{shop.url}/nudge'>{inputs}</form>", content_type="text/html"
        ),
    )
    watch.forgiven.append("localhost:1")

    watch.page.goto("http://localhost:1/evil")
    watch.outside_is_meant()
    with watch.page.expect_navigation():
        watch.page.evaluate("document.getElementById('f').submit()")

    expect(watch.page.get_by_text("does not come from the console's own pages")).to_be_visible()
    assert "evil" not in [note["error"] for note in shop.notes("inventory", refused, "nudged")]


def test_a_form_without_its_token_or_too_old_is_refused(shop: Shop, refused: str, watched: Watch):
    watch = watched()
    watch.page.goto(f"/sagas/{refused}")
    fields = form_of(watch.page, "/nudge") | {"reason": "evil"}

    for wrong in ("", "x.y", fields["token"][:-4] + "beef"):
        answer = watch.page.request.post("/nudge", form=fields | {"token": wrong}, headers=same_origin(shop))
        assert answer.status == 403
    no_reason = watch.page.request.post("/nudge", form=fields | {"reason": " "}, headers=same_origin(shop))
    assert no_reason.status == 400


def test_a_wrong_token_for_the_services_is_said(
    shop: Shop, refused: str, watched: Watch, other_console: Callable[..., str]
):
    watch = watched(base_url=other_console(token="wrong"))
    watch.page.goto(f"/sagas/{refused}")

    watch.page.get_by_text("Nudge", exact=True).click()
    watch.page.locator("#nudge-reason").fill("to see")
    watch.page.get_by_role("button", name="Nudge this saga").click()

    expect(watch.page.get_by_role("status").filter(has_text="Nudged")).to_contain_text("show the token of payment")


def test_from_elsewhere_one_signs_in_first(shop: Shop, refused: str, watched: Watch, other_console: Callable[..., str]):
    watch = watched(base_url=other_console(must_sign_in=True))
    watch.forgiven.append("401")

    watch.page.goto(f"/sagas/{refused}")
    watch.page.get_by_label("Your name").fill("Grace")
    watch.page.get_by_label("Token").fill("a guess")
    watch.page.get_by_role("button", name="Sign in").click()
    expect(watch.page.get_by_role("alert").filter(has_text="This is not the token")).to_be_visible()
    watch.page.get_by_label("Token").fill(TOKEN)
    watch.page.get_by_role("button", name="Sign in").click()

    expect(watch.page.locator("#sentence")).to_be_visible()
    assert watch.page.url.endswith(f"/sagas/{refused}")
    watch.page.get_by_role("button", name="Sign out").click()
    expect(watch.page.get_by_role("heading", name="Sign in")).to_be_visible()
    watch.page.goto("/")
    expect(watch.page.get_by_role("heading", name="Sign in")).to_be_visible()


# -- for everybody -------------------------------------------------------------------------------------------------


def test_all_is_done_by_keyboard_alone(shop: Shop, refused: str, page: Page):
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
    """Press the tabulator until something with that text has the focus, and see that focus can be seen all the way."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            return
        assert page.evaluate(
            "getComputedStyle(document.activeElement).outlineStyle != 'none' || !!document.activeElement.closest('svg')"
        )
    raise AssertionError(f"nothing that says {text!r} got the focus")


def test_no_page_scrolls_sideways_at_320_pixels(shop: Shop, refused: str, watched: Watch):
    page = watched(viewport={"width": 320, "height": 640}).page

    for address in (*ADDRESSES, f"/sagas/{refused}", "/sagas?q=" + "long" * 40):
        page.goto(address)
        expect(page.locator("h1")).to_be_visible()
        widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths == [320, 320], address


def test_it_is_dark_where_the_reader_wants_it_dark(watched: Watch):
    backgrounds = {}
    for scheme in ("light", "dark"):
        page = watched(color_scheme=scheme).page
        page.goto("/")
        backgrounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")

    brightness = {scheme: sum(map(int, re.findall(r"\d+", colour))) for scheme, colour in backgrounds.items()}
    assert brightness["light"] > 600
    assert brightness["dark"] < 100


def test_nothing_moves_for_who_wants_no_motion(watched: Watch):
    page = watched(reduced_motion="reduce").page
    page.goto("/")

    assert page.evaluate("document.getAnimations().length") == 0


#: In the dark the pages are the same but for their colours.
_RULES: dict[str, dict[str, Any]] = {"light": {}, "dark": {"runOnly": ["color-contrast"]}}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(shop: Shop, refused: str, watched: Watch, scheme: str):
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


def test_no_two_texts_of_a_drawing_lie_on_each_other(shop: Shop, refused: str, page: Page):

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


def test_a_page_that_is_linked_from_elsewhere_opens(shop: Shop, refused: str, watched: Watch, background: Background):
    watch = watched()
    watch.page.goto("/")
    cookie = watch.page.context.cookies()[0]["value"]
    watch.page.route(
        "http://elsewhere.example/",
        lambda route: route.fulfill(
            body=f"<a href='{shop.url}/sagas/{refused}'>look at this</a>", content_type="text/html"
        ),
    )
    watch.outside_is_meant()

    watch.page.goto("http://elsewhere.example/")
    watch.page.get_by_role("link", name="look at this").click()

    expect(watch.page.locator("#sentence")).to_be_visible()
    assert watch.page.context.cookies(shop.url)[0]["value"] == cookie


# -- a service that is away ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stuck(shop: Shop) -> Iterator[str]:
    """An order that waits for the shipping, which is away."""
    shop.kill("shipping")
    yield shop.place(**AQ)
    shop.revive("shipping")


def test_a_service_that_is_down_is_unreachable_and_never_not_done(shop: Shop, refused: str, stuck: str, page: Page):
    page.goto(f"/sagas/{refused}")
    expect(page.get_by_text("shipping is unreachable")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile(r"create_shipment, \? unknown"))).to_be_visible()
    expect(page.get_by_role("columnheader", name="shipping unreachable")).to_be_visible()

    page.goto(f"/sagas/{stuck}")
    expect(page.get_by_role("link", name=re.compile("process_payment, ✓ done"))).to_be_visible()
    expect(page.get_by_role("link", name=re.compile(r"create_shipment, \? unknown"))).to_be_visible()

    page.goto("/")
    expect(page.get_by_role("row", name=re.compile("shipping unreachable"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("payment ready"))).to_be_visible()
    for address in ("/sagas", "/attention", "/choreography"):
        page.goto(address)
        expect(page.get_by_text("shipping is unreachable")).to_be_visible()


def test_an_overdue_saga_is_nudged_and_aborted_by_hand(shop: Shop, stuck: str, page: Page):
    page.goto("/attention")
    page.get_by_role("link", name=f"Nudge… {stuck}").first.click()
    expect(page.get_by_text(re.compile("waits for the saga's end"))).not_to_have_count(0)

    page.locator("#nudge-reason").fill("shipping was away")
    page.get_by_role("button", name="Nudge this saga").dblclick()

    told = page.get_by_role("status").filter(has_text="Nudged")
    expect(told).to_contain_text("payment: sent PaymentProcessed")
    expect(told).to_contain_text("shipping: http")
    page.get_by_text("Abort", exact=True).click()
    page.locator("#abort-reason").fill("the customer called")
    page.get_by_role("button", name="Abort this saga").click()
    expect(page.get_by_role("status").filter(has_text="Abort")).to_contain_text("sent AbortRequested")
    nudges = [note["error"] for note in shop.notes("payment", stuck, "nudged")]
    assert nudges.count("shipping was away") == 1
    assert len(shop.notes("inventory", stuck, "aborted")) == 1


def test_a_service_that_comes_back_goes_on_and_the_page_with_it(shop: Shop, stuck: str, page: Page):
    page.goto(f"/sagas/{stuck}")
    expect(page.get_by_text("shipping is unreachable")).to_be_visible()

    shop.revive("shipping")

    expect(page.get_by_text("shipping is unreachable")).not_to_be_visible()
    expect(page.get_by_role("link", name=re.compile("reserve_inventory, ↩ undone"))).to_be_visible()
    shop.wait_for_end(stuck)
