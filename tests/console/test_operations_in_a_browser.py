"""Overview, choreography, dead letters and an outage in a real browser, beside four running services."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.console.browsers import AQ, form_of, same_origin
from tests.console.shop import Shop


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


def test_a_paused_page_sends_no_requests(shop: Shop, page: Page):
    page.goto("/")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    order = shop.place()
    shop.wait_for_end(order)

    page.wait_for_timeout(1_500)  # two refresh intervals
    assert asked == []
    page.get_by_role("button", name="Resume").click()
    page.wait_for_event("request")


def test_the_choreography_shows_consumers_and_event_counts(fulfilled: str, page: Page):
    page.goto("/choreography")

    expect(page.locator("svg .label", has_text=re.compile(r"\d×")).first).to_be_visible()  # noqa: RUF001  # a sign
    row = page.get_by_role("row", name=re.compile("^process_payment external payment"))
    expect(row).to_contain_text("InventoryReserved")
    page.get_by_role("link", name="PaymentProcessed").click()
    page.locator("#event-PaymentProcessed > summary").click()
    expect(page.get_by_label("Schema of PaymentProcessed")).to_contain_text('"amount"')


def test_a_thousand_dead_letters_are_redriven_once(shop: Shop, page: Page):
    orders = shop.dead_letter(1_000)
    page.goto("/attention")
    group = page.get_by_role("row", name=re.compile("retries spent"))
    expect(group).to_contain_text("1,000")
    expect(group).to_contain_text("send_cancellation_notice")

    group.get_by_role("link", name=re.compile("Redrive")).click()

    expect(page.locator("#outlook")).to_have_text("1,000 of 1,000 dead letters would be redriven.")
    assert shop.dead_letters() == 1_000
    button = page.get_by_role("button", name="Redrive 1,000 dead letters")
    button.click()  # the browser sends no form without a reason
    expect(button).to_be_visible()
    page.get_by_label("Reason").fill("the mail server is back")
    fields = form_of(page, "/attention/redrive")
    button.dblclick()
    expect(page.locator("#job")).to_contain_text("Done: 1,000 of 1,000 dead letters redriven")
    expect(page.locator("#failed-again")).to_contain_text("None has failed again so far")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1_600)  # two refresh intervals: a finished job is not requested again
    assert len(asked) <= 1
    again = page.request.post("/attention/redrive", form=fields | {"reason": "again"}, headers=same_origin(shop))
    assert again.url == page.url
    assert shop.dead_letters() == 0
    shop.wait_for_end(orders[0])
    shop.wait_for_end(orders[-1])
    assert len(shop.notes("notification", orders[0], "redriven")) == 1
    page.goto("/attention")
    expect(page.get_by_text("retries spent")).not_to_be_visible()


def test_a_dry_run_refuses_an_ended_sagas_message(shop: Shop, page: Page):
    (order,) = shop.dead_letter(1)
    page.goto(f"/sagas/{order}")
    page.get_by_role("link", name="Redrive…").click()
    page.get_by_label("Reason").fill("the mail server is back")
    page.get_by_role("button", name="Redrive 1 dead letter").click()
    expect(page.locator("#job")).to_contain_text("Done: 1 of 1")
    shop.wait_for_end(order)

    shop.dead_letter_again(order)
    page.goto(f"/attention/redrive?service=notification&saga={order}")

    expect(page.get_by_text("1 would be refused: the saga has ended")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Redrive"))).to_have_count(0)
    shop.drop(order)


@pytest.fixture(scope="module")
def stuck(shop: Shop) -> Iterator[str]:
    """An order that waits for the stopped shipping service."""
    shop.kill("shipping")
    yield shop.place(**AQ)
    shop.revive("shipping")


def test_a_stopped_service_is_shown_as_unknown(shop: Shop, refused: str, stuck: str, page: Page):
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


def test_an_overdue_saga_is_nudged_and_aborted(shop: Shop, stuck: str, page: Page):
    page.goto("/attention")
    page.get_by_role("link", name=f"Nudge… {stuck}").first.click()
    expect(page.get_by_text(re.compile("waiting for the saga's end"))).not_to_have_count(0)

    page.locator("#nudge-reason").fill("shipping was away")
    page.get_by_role("button", name="Nudge this saga").dblclick()

    status = page.get_by_role("status").filter(has_text="Nudged")
    expect(status).to_contain_text("payment: sent PaymentProcessed")
    expect(status).to_contain_text("shipping: http")
    page.get_by_text("Abort", exact=True).click()
    page.locator("#abort-reason").fill("the customer called")
    page.get_by_role("button", name="Abort this saga").click()
    expect(page.get_by_role("status").filter(has_text="Abort")).to_contain_text("sent AbortRequested")
    nudges = [note["error"] for note in shop.notes("payment", stuck, "nudged")]
    assert nudges.count("shipping was away") == 1
    assert len(shop.notes("inventory", stuck, "aborted")) == 1


def test_a_returning_service_updates_the_page(shop: Shop, stuck: str, page: Page):
    page.goto(f"/sagas/{stuck}")
    expect(page.get_by_text("shipping is unreachable")).to_be_visible()

    shop.revive("shipping")

    expect(page.get_by_text("shipping is unreachable")).not_to_be_visible()
    expect(page.get_by_role("link", name=re.compile("reserve_inventory, ↩ undone"))).to_be_visible()
    shop.wait_for_end(stuck)
