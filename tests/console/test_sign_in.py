"""A console that other machines reach shows and does nothing before a sign-in with the services' token."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from typer.testing import CliRunner

from tests.console.one_service import SECRET, form_token, from_address, sign_in
from toolkit.cli.app import app as cli
from toolkit.client.database_client import DatabaseClient
from toolkit.console.app import application
from toolkit.console.guard import SessionKeys, local_path
from toolkit.web.guess_limiter import PAUSE, Guesses, network_of


async def test_other_machines_see_nothing_before_signing_in(remote: httpx.AsyncClient):
    for path in ("/", "/sagas?state=Failed", "/sagas/x?format=json", "/choreography?part=live"):
        answer = await remote.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in?next=")
    token = await form_token(remote, "/sign-in")
    assert (await remote.post("/nudge", data={"token": token, "reason": "why"})).status_code == 401
    assert (await remote.get("/?part=live", headers={"HX-Request": "true"})).status_code == 401
    assert (await remote.get("/healthz")).status_code == 200


@pytest.mark.parametrize("name", ["evil.example", "console.example.evil.example", "", "[evil.example]"])
async def test_a_console_with_sign_in_checks_its_name(remote: httpx.AsyncClient, name: str):
    assert (await remote.get("/sign-in", headers={"Host": name})).status_code == 421
    for own in ("console.example:8080", "CONSOLE.example", "10.0.0.7", "[::1]:80", "localhost"):
        assert (await remote.get("/sign-in", headers={"Host": own})).status_code == 200


async def test_signing_in_leads_to_the_requested_page(remote: httpx.AsyncClient):
    token = await form_token(remote, "/sign-in?next=/choreography")
    fields = {"token": token, "name": "Grace", "next": "/choreography"}
    nameless = await remote.post("/sign-in", data=fields | {"name": " ", "secret": SECRET.get_secret_value()})
    wrong = await remote.post("/sign-in", data=fields | {"secret": "a guess"})
    right = await remote.post("/sign-in", data=fields | {"secret": SECRET.get_secret_value()})

    assert (nameless.status_code, wrong.status_code) == (400, 401)
    assert (right.status_code, right.headers["location"]) == (303, "/choreography")
    assert (await remote.get("/choreography")).status_code == 200


@pytest.mark.parametrize("wanted", ["//evil.example/", "https://evil.example", "/\\evil.example", "evil", "", "/a\nb"])
def test_signing_in_leads_to_no_other_site(wanted: str):
    assert local_path(wanted) == "/"
    assert local_path("/sagas/order-1?part=x") == "/sagas/order-1?part=x"


async def test_parallel_guesses_are_slow_or_refused(remote: httpx.AsyncClient):
    token = await form_token(remote, "/sign-in")
    fields = {"token": token, "name": "Mallory", "secret": "a guess"}
    began = time.monotonic()

    answers = await asyncio.gather(*(remote.post("/sign-in", data=fields) for _ in range(30)))

    wrong = [each for each in answers if each.status_code == 401]
    refused = [each for each in answers if each.status_code == 429]
    assert len(wrong) + len(refused) == 30
    assert 0 < len(wrong) <= (time.monotonic() - began) / PAUSE
    assert {each.headers["retry-after"] for each in refused} == {"2"}


async def test_guesses_of_one_client_delay_no_other(payment_client: DatabaseClient):
    app = application([payment_client], token=SECRET, must_sign_in=True, names=("console.example",))
    guessing, honest = (from_address(app, each) for each in ("203.0.113.9", "203.0.113.10"))
    token = await form_token(guessing, "/sign-in")
    fields = {"token": token, "name": "Mallory", "secret": "a guess"}
    guesses = [asyncio.create_task(guessing.post("/sign-in", data=fields)) for _ in range(30)]
    await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)

    await sign_in(honest)

    assert not all(each.done() for each in guesses)
    await asyncio.gather(*guesses)


async def test_a_clients_fifth_waiting_guess_is_refused():
    guesses, looked_at = Guesses(), asyncio.Event()

    async def guess() -> None:
        async with guesses.turn("203.0.113.9"):
            await looked_at.wait()

    waiting = [asyncio.create_task(guess()) for _ in range(4)]
    await asyncio.sleep(0)

    with pytest.raises(HTTPException, match="Too many guesses"):
        await guess()
    looked_at.set()
    await asyncio.gather(*waiting)
    await guess()


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_a_client_is_its_address_or_network(client: str, network: str):
    assert network_of(client) == network


async def test_signing_out_invalidates_copies_of_the_cookie(remote: httpx.AsyncClient):
    await sign_in(remote)
    kept = dict(remote.cookies)

    token = await form_token(remote, "/", of="/sign-out")
    await remote.post("/sign-out", data={"token": token})

    assert (await remote.get("/")).status_code == 303
    remote.cookies.clear()
    assert (await remote.get("/", headers={"Cookie": "; ".join(map("=".join, kept.items()))})).status_code == 303


async def test_a_guests_cookie_reveals_nothing_about_the_token(remote: httpx.AsyncClient):
    await remote.get("/sign-in")
    cookie = next(iter(remote.cookies.values()))

    assert SessionKeys(SECRET).role(cookie) is None  # the token alone neither makes nor checks a signature


def test_a_forged_cookie_has_no_role():
    ours, others = SessionKeys(SECRET), SessionKeys(SecretStr("another"))
    cookie = ours.sign_in("Grace")

    assert (ours.role(cookie), ours.name(cookie)) == ("operator", "Grace")
    assert ours.role(ours.guest()) == "guest"
    for wrong in ("", "x", "...", cookie[:-1], cookie.replace("operator", "guest"), others.sign_in("Grace")):
        assert ours.role(wrong) is None
    assert not ours.is_form_token(ours.form_token(cookie), "another cookie")


def test_listening_on_other_addresses_requires_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SAGA_API_TOKEN", raising=False)
    command = ["console", "--port", "0", "--service", "payment=http://127.0.0.1:1", "--host"]

    done = CliRunner().invoke(cli, [*command, "0.0.0.0"])
    short = CliRunner().invoke(cli, [*command, "0.0.0.0"], env={"SAGA_API_TOKEN": "fifteen symbols"})
    nowhere = CliRunner().invoke(cli, [*command, "192.0.2.1"], env={"SAGA_API_TOKEN": SECRET.get_secret_value()})

    assert (done.exit_code, short.exit_code, nowhere.exit_code) == (2, 2, 2)
    assert "--host 0.0.0.0 is reached from other machines, and SAGA_API_TOKEN has 15 characters" in short.stderr
    assert "signing in needs SAGA_API_TOKEN" in done.stderr
    assert "--host 192.0.2.1 --port 0 can't be listened on" in nowhere.stderr
