"""A page may load the console's own files only, and another site can neither submit its forms nor use its cookie."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.console.one_service import form_token

PATHS = ("/", "/sagas", "/sagas/x", "/attention", "/questions", "/choreography", "/nothing", "/static/htmx.min.js")


@pytest.mark.parametrize("path", PATHS)
async def test_every_response_restricts_the_browser_to_own_files(local: httpx.AsyncClient, path: str):
    headers = (await local.get(path)).headers

    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/sagas", "/attention", "/questions", "/choreography"])
async def test_a_page_has_no_inline_script_or_style(local: httpx.AsyncClient, path: str):
    page = (await local.get(path)).text

    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?! src=\"/static/)", page) == []


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1"])
async def test_a_local_console_accepts_loopback_names_only(local: httpx.AsyncClient, name: str):
    assert (await local.get("/", headers={"Host": name})).status_code == 421
    for own in ("localhost", "127.0.0.1:1", "[::1]:9999", "LOCALHOST:8080"):
        assert (await local.get("/", headers={"Host": own})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:9999"},
        {"Origin": "null"},
    ],
)
async def test_a_form_of_another_site_is_refused(local: httpx.AsyncClient, headers: dict[str, str]):
    token = await form_token(local)

    answer = await local.post(
        "/nudge", data={"token": token, "reason": "why", "saga": "x", "submission": "d"}, headers=headers
    )

    assert answer.status_code == 403


async def test_a_form_needs_the_cookie_of_its_page(local: httpx.AsyncClient):
    token = await form_token(local)
    fields = {"token": token, "reason": "why", "saga": "x", "submission": "d"}

    taken = await local.post("/nudge", data=fields, headers={"Origin": "http://localhost:8080"})
    local.cookies.clear()
    refused = await local.post("/nudge", data=fields, headers={"Origin": "http://localhost:8080"})

    assert (taken.status_code, taken.headers["location"]) == (303, "/sagas/x?submission=d")
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("body", "status"), [(b"\xff\xfe", 400), (b"no form", 400), (b"a=" + b"x" * 20_000, 413), (b"", 403)]
)
async def test_a_malformed_form_is_refused(local: httpx.AsyncClient, body: bytes, status: int):
    assert (await local.post("/nudge", content=body)).status_code == status


@pytest.mark.parametrize("reason", ["", "   ", "\x00\n", "x" * 501])
async def test_an_action_without_a_valid_reason_is_refused(local: httpx.AsyncClient, reason: str):
    token = await form_token(local)

    answer = await local.post("/abort", data={"token": token, "reason": reason, "saga": "x", "submission": "d"})

    assert answer.status_code == 400


async def test_the_cookie_is_hidden_from_scripts_and_sites(local: httpx.AsyncClient):
    cookie = (await local.get("/")).headers["set-cookie"]

    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


@pytest.mark.parametrize(
    ("host", "port"),
    [("localhost:8090", 8090), ("localhost", 80), ("[::1]:9999", 9999), ("127.0.0.1:80", 80), ("localhost:x", 80)],
)
async def test_the_cookie_is_named_after_the_browsers_port(local: httpx.AsyncClient, host: str, port: int):
    cookie = (await local.get("/", headers={"Host": host})).headers["set-cookie"]

    assert cookie.startswith(f"saga_console_{port}=")


async def test_a_link_from_another_site_sets_no_cookie(local: httpx.AsyncClient):
    led = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}

    answer = await local.get("/sagas/x", headers=led)

    assert 'http-equiv="refresh"' in answer.text
    assert "set-cookie" not in answer.headers


async def test_an_error_page_links_back_to_the_form(local: httpx.AsyncClient):
    fields = {"token": await form_token(local), "reason": " ", "saga": "x", "submission": "d"}
    other_site = {"Referer": "http://evil.example/sagas/x"}

    answer = await local.post("/abort", data=fields, headers={"Referer": "http://localhost:8080/sagas/x?do=abort"})
    led = await local.get("/nothing", headers=other_site)

    assert '<a href="/sagas/x?do=abort">Back to the previous page</a>' in answer.text
    assert '<a href="/">To the overview</a>' in led.text
