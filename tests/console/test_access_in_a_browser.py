"""Forms of other sites, tokens and sign-in in a real browser, beside four running services."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from tests.console.browsers import Watch, form_of, same_origin
from tests.console.shop import TOKEN, Shop


def test_another_sites_form_is_refused(shop: Shop, refused: str, watched: Watch):
    watch = watched()
    watch.expected.append("403")
    watch.page.goto(f"/sagas/{refused}")
    fields = form_of(watch.page, "/nudge") | {"reason": "evil"}
    inputs = "".join(f"<input name='{name}' value='{value}'>" for name, value in fields.items())
    watch.page.route(
        "http://localhost:1/evil",
        lambda route: route.fulfill(
            body=f"<form id=f method=post action='{shop.url}/nudge'>{inputs}</form>", content_type="text/html"
        ),
    )
    watch.expected.append("localhost:1")

    watch.page.goto("http://localhost:1/evil")
    watch.allow_other_sites()
    with watch.page.expect_navigation():
        watch.page.evaluate("document.getElementById('f').submit()")

    expect(watch.page.get_by_text("does not come from the console's own pages")).to_be_visible()
    assert "evil" not in [note["error"] for note in shop.notes("inventory", refused, "nudged")]


def test_a_form_without_a_valid_token_is_refused(shop: Shop, refused: str, watched: Watch):
    watch = watched()
    watch.page.goto(f"/sagas/{refused}")
    fields = form_of(watch.page, "/nudge") | {"reason": "evil"}

    for wrong in ("", "x.y", fields["token"][:-4] + "beef"):
        answer = watch.page.request.post("/nudge", form=fields | {"token": wrong}, headers=same_origin(shop))
        assert answer.status == 403
    no_reason = watch.page.request.post("/nudge", form=fields | {"reason": " "}, headers=same_origin(shop))
    assert no_reason.status == 400


def test_a_rejected_service_token_is_reported(
    shop: Shop, refused: str, watched: Watch, other_console: Callable[..., str]
):
    watch = watched(base_url=other_console(token="wrong"))
    watch.page.goto(f"/sagas/{refused}")

    watch.page.get_by_text("Nudge", exact=True).click()
    watch.page.locator("#nudge-reason").fill("to see")
    watch.page.get_by_role("button", name="Nudge this saga").click()

    expect(watch.page.get_by_role("status").filter(has_text="Nudged")).to_contain_text("send the token of payment")


def test_a_remote_browser_signs_in_first(shop: Shop, refused: str, watched: Watch, other_console: Callable[..., str]):
    watch = watched(base_url=other_console(must_sign_in=True))
    watch.expected.append("401")

    watch.page.goto(f"/sagas/{refused}")
    watch.page.get_by_label("Your name").fill("Grace")
    watch.page.get_by_label("Token").fill("a guess")
    watch.page.get_by_role("button", name="Sign in").click()
    expect(watch.page.get_by_role("alert").filter(has_text="The token is wrong")).to_be_visible()
    watch.page.get_by_label("Token").fill(TOKEN)
    watch.page.get_by_role("button", name="Sign in").click()

    expect(watch.page.locator("#summary")).to_be_visible()
    assert watch.page.url.endswith(f"/sagas/{refused}")
    watch.page.get_by_role("button", name="Sign out").click()
    expect(watch.page.get_by_role("heading", name="Sign in")).to_be_visible()
    watch.page.goto("/")
    expect(watch.page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_link_from_another_site_opens(shop: Shop, refused: str, watched: Watch):
    watch = watched()
    watch.page.goto("/")
    cookie = watch.page.context.cookies()[0]["value"]
    watch.page.route(
        "http://elsewhere.example/",
        lambda route: route.fulfill(
            body=f"<a href='{shop.url}/sagas/{refused}'>look at this</a>", content_type="text/html"
        ),
    )
    watch.allow_other_sites()

    watch.page.goto("http://elsewhere.example/")
    watch.page.get_by_role("link", name="look at this").click()

    expect(watch.page.locator("#summary")).to_be_visible()
    assert watch.page.context.cookies(shop.url)[0]["value"] == cookie
