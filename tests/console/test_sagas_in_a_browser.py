"""One order and the list of orders in a real browser, beside four running services."""

from __future__ import annotations

import re

import httpx
from playwright.sync_api import Page, expect

from tests.console.browsers import AQ, BOUNCES
from tests.console.shop import Shop


def test_a_saga_page_follows_an_order_live(shop: Shop, page: Page):
    order = "order-watched-live"
    page.goto(f"/sagas/{order}")
    expect(page.get_by_text("No service knows this saga yet")).to_be_visible()

    shop.place(order_id=order, payment_method="card_flaky", **BOUNCES)

    expect(page.get_by_text(re.compile(r"attempt 1 of 4"))).to_be_visible()
    expect(page.locator("#summary")).to_contain_text("refused")
    expect(page.locator("#summary")).to_contain_text("Ended")
    for undone in ("reserve_inventory", "process_payment", "create_shipment"):
        expect(page.get_by_role("link", name=re.compile(rf"{undone}, ↩ undone"))).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("send_confirmation, ✗ refused"))).to_be_visible()
    expect(page.get_by_role("rowheader", name="↩ Compensation")).to_be_visible()


def test_the_timeline_shows_events_and_retries(fulfilled: str, page: Page):
    page.goto(f"/sagas/{fulfilled}")

    expect(page.get_by_text("attempt 2 of 4 failed")).to_be_visible()
    page.get_by_role("link", name=re.compile("process_payment, ✓ done")).click()
    step = page.locator("[id='step-payment.process_payment']")
    step.locator("summary").click()
    expect(step.get_by_text("3 of 4")).to_be_visible()
    expect(step.get_by_label("Event in of process_payment")).to_contain_text('"total_amount"')
    expect(step.get_by_label("Event out of process_payment")).to_contain_text(fulfilled)
    expect(page.get_by_role("img", name=re.compile("The messages between services"))).to_be_visible()


def test_a_saga_page_masks_sensitive_fields(fulfilled: str, page: Page):
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

    expect(page.locator("#summary")).to_contain_text("refused")
    assert page.locator("main img, main script").count() == 0
    assert dialogs == []
    for search in (evil, f'"><b>{evil}'):
        page.goto("/sagas")
        page.get_by_role("searchbox").fill(search)
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("<script>alert(2)")
    assert dialogs == []


def test_an_open_step_stays_open_and_focused(shop: Shop, page: Page):
    order = "order-open-and-focused"
    page.goto(f"/sagas/{order}")
    shop.place(order_id=order, payment_method="card_flaky")
    summary = page.locator("[id='step-inventory.reserve_inventory'] > summary")
    summary.focus()
    page.keyboard.press("Enter")

    expect(page.get_by_role("link", name=re.compile("send_confirmation, ✓ done"))).to_be_visible()

    expect(summary).to_be_focused()
    expect(page.get_by_label("Event out of reserve_inventory")).to_be_visible()


def test_a_saga_is_available_as_json(shop: Shop, fulfilled: str, page: Page):
    page.goto(f"/sagas/{fulfilled}")

    page.get_by_role("link", name="Raw JSON").click()

    assert page.url.endswith("&format=json")
    timeline = page.request.get(page.url).json()
    assert timeline["state"] == "Completed"
    assert set(timeline["services"]) == {"inventory", "payment", "shipping", "notification"}
    assert httpx.get(f"{shop.url}/sagas/nobody?format=json", trust_env=False).status_code == 404


def test_search_finds_an_order_by_either_id(shop: Shop, fulfilled: str, page: Page):
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
    expect(page.get_by_text("No saga matches")).to_be_visible()
    page.goto("/sagas?step=process_payment&state=Completed")  # the step that moved last is the confirmation
    expect(page.get_by_text("No saga matches")).to_be_visible()
    page.goto("/sagas?step=send_confirmation&state=Completed")
    completed = set(ids(page))
    assert completed
    assert not failed & completed


def ids(page: Page) -> list[str]:
    """Return the sagas that a list shows."""
    expect(page.locator("main table")).to_be_visible()
    return page.locator("main tbody th a").all_inner_texts()
