"""Who may use the console, and what a page may do: whatever a browser or somebody else sends."""

from __future__ import annotations

import asyncio
import html
import re
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from typer.testing import CliRunner

from services.payment.app import app as payment
from tests.eventually import eventually
from toolkit import Settings
from toolkit.api import Access, ApiContext, api_routes
from toolkit.cli.app import app as cli
from toolkit.client.database_client import DatabaseClient
from toolkit.client.http_client import HttpClient
from toolkit.clock import SystemClock
from toolkit.console.app import application
from toolkit.console.guard import Keys, local_path
from toolkit.declaration.contract import Contract
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import audit_log, dead_letter_queries, dead_letters
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter, Selection
from toolkit.web.guess_limiter import PAUSE, Guesses, network_of

SECRET = SecretStr("a-token-of-the-services")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A service's database in which nothing is yet."""
    database = Database(Settings(data_dir=tmp_path, broker_url="embedded").database_for("payment"))
    await database.create_tables()
    yield database
    await database.close()


@pytest.fixture
async def client(database: Database) -> AsyncIterator[DatabaseClient]:
    """What the console may do there."""
    client = DatabaseClient(
        "payment",
        database.url,
        queue="saga.payment",
        emitted=payment.emitted,
        contract=lambda: Contract.of(payment),
        clock=SystemClock(),
    )
    yield client
    await client.close()


@pytest.fixture
async def here(client: DatabaseClient) -> AsyncIterator[httpx.AsyncClient]:
    """A console on this machine."""
    app = application([client], token=SECRET, must_sign_in=False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8080") as client:
        yield client


@pytest.fixture
async def elsewhere(client: DatabaseClient) -> AsyncIterator[httpx.AsyncClient]:
    """A console that other machines reach."""
    app = application([client], token=SECRET, must_sign_in=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console.example") as client:
        yield client


def from_address(app: Starlette, address: str) -> httpx.AsyncClient:
    """Return a browser on another machine."""
    transport = httpx.ASGITransport(app, client=(address, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://console.example")


PATHS = ("/", "/sagas", "/sagas/x", "/attention", "/choreography", "/nothing", "/static/htmx.min.js")


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_forbids_the_browser_all_but_what_is_ours(here: httpx.AsyncClient, path: str):
    headers = (await here.get(path)).headers

    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/sagas", "/attention", "/choreography"])
async def test_a_page_has_no_script_and_no_style_of_its_own(here: httpx.AsyncClient, path: str):
    page = (await here.get(path)).text

    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?! src=\"/static/)", page) == []


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1"])
async def test_on_this_machine_it_answers_to_its_own_names_alone(here: httpx.AsyncClient, name: str):
    assert (await here.get("/", headers={"Host": name})).status_code == 421
    for own in ("localhost", "127.0.0.1:1", "[::1]:9999", "LOCALHOST:8080"):
        assert (await here.get("/", headers={"Host": own})).status_code == 200


@pytest.mark.parametrize(
    "said",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:9999"},
        {"Origin": "null"},
    ],
)
async def test_a_form_of_another_site_is_refused(here: httpx.AsyncClient, said: dict[str, str]):
    token = await form_token(here)

    answer = await here.post(
        "/nudge", data={"token": token, "reason": "why", "saga": "x", "submission": "d"}, headers=said
    )

    assert answer.status_code == 403


async def test_a_form_is_taken_with_the_cookie_that_it_was_made_for(here: httpx.AsyncClient):
    token = await form_token(here)
    fields = {"token": token, "reason": "why", "saga": "x", "submission": "d"}

    taken = await here.post("/nudge", data=fields, headers={"Origin": "http://localhost:8080"})
    here.cookies.clear()
    refused = await here.post("/nudge", data=fields, headers={"Origin": "http://localhost:8080"})

    assert (taken.status_code, taken.headers["location"]) == (303, "/sagas/x?told=d")
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("body", "status"), [(b"\xff\xfe", 400), (b"no form", 400), (b"a=" + b"x" * 20_000, 413), (b"", 403)]
)
async def test_what_is_no_form_is_refused(here: httpx.AsyncClient, body: bytes, status: int):
    assert (await here.post("/nudge", content=body)).status_code == status


@pytest.mark.parametrize("reason", ["", "   ", "\x00\n", "x" * 501])
async def test_nothing_is_done_without_a_reason_that_can_be_kept(here: httpx.AsyncClient, reason: str):
    token = await form_token(here)

    answer = await here.post("/abort", data={"token": token, "reason": reason, "saga": "x", "submission": "d"})

    assert answer.status_code == 400


async def test_letters_are_named_before_any_is_redriven(here: httpx.AsyncClient):
    token = await form_token(here)
    fields = {"token": token, "reason": "why", "service": "payment", "job": "j", "total": "1"}

    assert (await here.post("/attention/redrive", data=fields)).status_code == 400
    assert (await here.get("/attention/redrive?service=payment")).status_code == 400
    assert (await here.get("/attention/redrive?service=nobody&step=x")).status_code == 400


async def test_the_cookie_is_read_by_no_script_and_sent_by_no_other_site(here: httpx.AsyncClient):
    cookie = (await here.get("/")).headers["set-cookie"]

    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


async def test_from_elsewhere_nothing_is_shown_or_done_before_signing_in(elsewhere: httpx.AsyncClient):
    for path in ("/", "/sagas?state=Failed", "/sagas/x?format=json", "/choreography?part=live"):
        answer = await elsewhere.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in?next=")
    token = await form_token(elsewhere, "/sign-in")
    assert (await elsewhere.post("/nudge", data={"token": token, "reason": "why"})).status_code == 401
    assert (await elsewhere.get("/?part=live", headers={"HX-Request": "true"})).status_code == 401
    assert (await elsewhere.get("/healthz")).status_code == 200


async def test_one_signs_in_with_the_token_and_goes_on_where_one_wanted(elsewhere: httpx.AsyncClient):
    token = await form_token(elsewhere, "/sign-in?next=/choreography")
    fields = {"token": token, "name": "Grace", "next": "/choreography"}
    nobody = await elsewhere.post("/sign-in", data=fields | {"name": " ", "secret": SECRET.get_secret_value()})
    wrong = await elsewhere.post("/sign-in", data=fields | {"secret": "a guess"})
    right = await elsewhere.post("/sign-in", data=fields | {"secret": SECRET.get_secret_value()})

    assert (nobody.status_code, wrong.status_code) == (400, 401)
    assert (right.status_code, right.headers["location"]) == (303, "/choreography")
    assert (await elsewhere.get("/choreography")).status_code == 200


async def test_guesses_at_once_are_slow_or_refused(elsewhere: httpx.AsyncClient):
    token = await form_token(elsewhere, "/sign-in")
    fields = {"token": token, "name": "Mallory", "secret": "a guess"}
    began = time.monotonic()

    answers = await asyncio.gather(*(elsewhere.post("/sign-in", data=fields) for _ in range(30)))

    wrong = [each for each in answers if each.status_code == 401]
    refused = [each for each in answers if each.status_code == 429]
    assert len(wrong) + len(refused) == 30
    assert 0 < len(wrong) <= (time.monotonic() - began) / PAUSE
    assert {each.headers["retry-after"] for each in refused} == {"2"}


async def test_guesses_of_one_client_delay_no_other(client: DatabaseClient):
    app = application([client], token=SECRET, must_sign_in=True)
    guessing, honest = (from_address(app, each) for each in ("203.0.113.9", "203.0.113.10"))
    token = await form_token(guessing, "/sign-in")
    fields = {"token": token, "name": "Mallory", "secret": "a guess"}
    guesses = [asyncio.create_task(guessing.post("/sign-in", data=fields)) for _ in range(30)]
    await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)

    await sign_in(honest)

    assert not all(each.done() for each in guesses)
    await asyncio.gather(*guesses)


async def test_of_one_client_four_guesses_wait_and_the_fifth_is_refused():
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
def test_a_client_is_what_it_cannot_change_of_its_address(client: str, network: str):
    assert network_of(client) == network


async def test_who_signs_out_is_out_whoever_kept_the_cookie(elsewhere: httpx.AsyncClient):
    await sign_in(elsewhere)
    kept = dict(elsewhere.cookies)

    token = await form_token(elsewhere, "/", of="/sign-out")
    await elsewhere.post("/sign-out", data={"token": token})

    assert (await elsewhere.get("/")).status_code == 303
    elsewhere.cookies.clear()
    assert (await elsewhere.get("/", headers={"Cookie": "; ".join(map("=".join, kept.items()))})).status_code == 303


async def test_a_strangers_cookie_tells_nothing_of_the_token(elsewhere: httpx.AsyncClient):
    await elsewhere.get("/sign-in")
    cookie = next(iter(elsewhere.cookies.values()))

    assert Keys(SECRET).role(cookie) is None  # whoever guesses the token can't make, or check, a signature


@pytest.mark.parametrize(
    ("host", "port"),
    [("localhost:8090", 8090), ("localhost", 80), ("[::1]:9999", 9999), ("127.0.0.1:80", 80), ("localhost:x", 80)],
)
async def test_the_cookie_goes_by_the_port_that_the_browser_knows(here: httpx.AsyncClient, host: str, port: int):
    cookie = (await here.get("/", headers={"Host": host})).headers["set-cookie"]

    assert cookie.startswith(f"saga_console_{port}=")


async def test_the_audit_has_the_name_of_the_person_which_the_session_keeps(
    elsewhere: httpx.AsyncClient, database: Database
):
    await bury(database, "schema", "unknown event", "not JSON")
    await sign_in(elsewhere, "Grace Hopper")
    form = await elsewhere.get("/attention/redrive?service=payment&reason_is=schema")

    for name, reason_is in (("", "schema"), ("Ada", "unknown event"), ("", "not JSON")):
        await order(elsewhere, database, "redrive", reason_is, name=name)

    assert 'value="Grace Hopper"' in form.text
    assert await actors(database) == ["Grace Hopper (console)", "Ada (console)", "Ada (console)"]


@pytest.mark.parametrize("wanted", ["//evil.example/", "https://evil.example", "/\\evil.example", "evil", "", "/a\nb"])
def test_signing_in_leads_to_no_other_site(wanted: str):
    assert local_path(wanted) == "/"
    assert local_path("/sagas/order-1?part=x") == "/sagas/order-1?part=x"


def test_a_cookie_that_we_did_not_make_is_nobodys():
    ours, others = Keys(SECRET), Keys(SecretStr("another"))
    cookie = ours.sign_in("Grace")

    assert (ours.role(cookie), ours.name(cookie)) == ("operator", "Grace")
    assert ours.role(ours.guest()) == "guest"
    for wrong in ("", "x", "...", cookie[:-1], cookie.replace("operator", "guest"), others.sign_in("Grace")):
        assert ours.role(wrong) is None
    assert not ours.is_form_token(ours.form_token(cookie), "another cookie")


async def test_what_another_sites_link_leads_to_is_asked_for_again_and_gets_no_new_cookie(here: httpx.AsyncClient):
    led = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}

    answer = await here.get("/sagas/x", headers=led)

    assert 'http-equiv="refresh"' in answer.text
    assert "set-cookie" not in answer.headers


async def test_a_live_part_that_did_not_change_is_not_sent_again(here: httpx.AsyncClient):
    first = await here.get("/choreography?part=live")

    again = await here.get("/choreography?part=live", headers={"If-None-Match": first.headers["etag"]})

    assert "<html" not in first.text
    assert (again.status_code, again.content) == (204, b"")


#: Not base64, and then: no JSON, `{}`, a place without cursors, one whose time is none.
PLACES = ("%00", "x", "e30", "eyJiZWhpbmQiOm51bGx9", "eyJiZWhpbmQiOlsiMjAyNiIsMV0sIm9mIjp7fX0")


@pytest.mark.parametrize("place", PLACES)
async def test_a_page_of_a_list_that_is_none_is_refused(here: httpx.AsyncClient, place: str):
    assert (await here.get(f"/sagas?from={place}")).status_code == 400


@pytest.mark.parametrize("query", ["state=Nope", "attention=Nope", "age=soon", "age=-1s", "age=99999999d"])
async def test_a_filter_that_is_none_is_said_to_be(here: httpx.AsyncClient, query: str):
    answer = await here.get(f"/sagas?{query}")

    assert answer.status_code == 400
    assert "Not understood" in answer.text


@pytest.mark.parametrize("saga_id", ["..", "a b", "%F0%9F%8D%B5", "x" * 300, "<b>"])
async def test_an_id_that_is_none_is_nobodys_saga(here: httpx.AsyncClient, saga_id: str):
    assert (await here.get("/sagas", params={"q": saga_id})).status_code == 200
    if saga_id != "..":
        assert (await here.get(f"/sagas/{saga_id}")).status_code == 200


@pytest.mark.parametrize("query", ["q=%00", "step=%01", "type=%7F", "older_than=abc", "cursor=zzz"])
async def test_what_no_service_could_be_asked_is_no_outage(here: httpx.AsyncClient, query: str):
    answer = await here.get(f"/sagas?{query}")

    assert answer.status_code == 400
    assert "Not understood" in answer.text
    assert "unreachable" not in answer.text
    if "=%" not in query:
        assert "there are q, state, step, attention, age, type, from" in answer.text


async def test_an_id_that_could_be_nobodys_is_not_asked_for(here: httpx.AsyncClient):
    answer = await here.get("/sagas/%00")

    assert (answer.status_code, "Not understood" in answer.text) == (400, True)


@pytest.mark.parametrize("saga_id", ["../../etc/passwd", "a/b", "a?b", "a#b", "a/"])
async def test_a_letters_saga_has_a_page_whatever_its_id_is(here: httpx.AsyncClient, database: Database, saga_id: str):
    await bury(database, "schema", saga_id=saga_id)
    listed = (await here.get("/attention/redrive?service=payment&reason_is=schema")).text
    (link,) = re.findall(r'href="(/sagas/[^"]+)"', listed)

    page = await here.get(link)
    (live,) = re.findall(r'hx-get="([^"]+)"', page.text)

    assert page.status_code == 200
    assert f"{saga_id}</span></h1>" in page.text
    assert "nothing to be done" in page.text
    assert "nothing to be done" in (await here.get(html.unescape(live))).text


@pytest.mark.parametrize("saga_id", ["order-of-nobody", "order-1"])
async def test_nothing_is_offered_for_a_saga_that_nobody_began(
    here: httpx.AsyncClient, database: Database, saga_id: str
):
    await bury(database, "schema")  # of order-1

    page = (await here.get(f"/sagas/{saga_id}?do=abort")).text

    assert "What can be done" not in page
    assert "Abort this saga" not in page


async def test_from_a_form_that_was_refused_one_gets_back_to_it(here: httpx.AsyncClient):
    fields = {"token": await form_token(here), "reason": " ", "saga": "x", "submission": "d"}
    elsewhere = {"Referer": "http://evil.example/sagas/x"}

    answer = await here.post("/abort", data=fields, headers={"Referer": "http://localhost:8080/sagas/x?do=abort"})
    led = await here.get("/nothing", headers=elsewhere)

    assert '<a href="/sagas/x?do=abort">Back to where you were</a>' in answer.text
    assert '<a href="/">To the overview</a>' in led.text


async def test_letters_that_come_back_are_not_passed_off_as_done(here: httpx.AsyncClient, database: Database):
    await bury(database, "schema", "schema", "schema")
    async with database.reading() as connection:
        before = await dead_letters.choose(connection, Selection(), most=10, locked=False)
    job = await order(here, database, "redrive", "schema")

    async with database.transaction() as session:  # as the service does with what it still can't read
        again = [replace(each, id=new_id()) for each in before[:2]]
        await dead_letters.add(await session.connection(), again)
    await bury(database, "schema")  # another message

    async def is_told() -> bool:
        return "2 came back" in (await here.get(job)).text

    await eventually(is_told, what="what came back")


async def test_letters_are_dropped_after_a_look_and_once(here: httpx.AsyncClient, database: Database):
    await bury(database, "schema", "schema", "not JSON")

    look = (await here.get("/attention/drop?service=payment&reason_is=schema")).text
    job = await order(here, database, "drop", "schema")

    assert "would be dropped" in look
    assert "2</strong> of 2 letters would be dropped" in look
    assert "Done: 2 of 2 letters dropped" in (await here.get(job)).text
    assert await actors(database) == ["Ada (console)"] * 2
    async with database.reading() as connection:
        assert [row["reason"] for row in await dead_letter_queries.listed(connection)] == ["not JSON"]
    assert (await here.get("/attention/eat?service=payment&reason_is=schema")).status_code == 404


async def test_attention_says_why_there_are_letters(here: httpx.AsyncClient, database: Database):
    await bury(database, "schema")

    page = (await here.get("/attention")).text

    assert "schema: nothing to be done" in page
    assert 'href="/sagas/order-1"' in page
    assert "1 letter of" in page


async def test_attention_is_calm_where_nothing_is_stuck(here: httpx.AsyncClient):
    assert "Nothing needs anybody" in (await here.get("/attention")).text


async def test_attention_is_not_calm_while_a_service_is_away_or_without_its_broker(database: Database):
    async def readiness() -> dict[str, bool]:
        return {"broker": False, "database": True, "relay": True}

    site = ApiContext(
        service=payment, contract=Contract.of(payment), database=database, readiness=readiness,
        queue="saga.payment", clock=SystemClock(),
    )  # fmt: skip
    service = Starlette(routes=api_routes(site, Access("payment", token=SECRET)))
    server = uvicorn.Server(uvicorn.Config(service, log_config=None))
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve(sockets=[listener]))

    without = await attention_of("payment", f"http://127.0.0.1:{listener.getsockname()[1]}")
    away = await attention_of("payment", "http://127.0.0.1:1")
    server.should_exit = True
    await serving

    assert "payment is not ready</strong>: no broker." in without
    assert "payment is unreachable" in away
    assert "Nothing needs anybody" not in without + away


async def attention_of(name: str, url: str) -> str:
    """Return the page as a console of this one service shows it."""
    client = HttpClient(name, url, token=SECRET)
    app = application([client], token=SECRET, must_sign_in=False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8080") as client:
        page = (await client.get("/attention")).text
    await client.close()
    return page


def test_it_listens_to_other_machines_only_with_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SAGA_API_TOKEN", raising=False)
    command = ["console", "--port", "0", "--service", "payment=http://127.0.0.1:1", "--host"]

    done = CliRunner().invoke(cli, [*command, "0.0.0.0"])
    short = CliRunner().invoke(cli, [*command, "0.0.0.0"], env={"SAGA_API_TOKEN": "fifteen letters"})
    nowhere = CliRunner().invoke(cli, [*command, "192.0.2.1"], env={"SAGA_API_TOKEN": SECRET.get_secret_value()})

    assert (done.exit_code, short.exit_code, nowhere.exit_code) == (2, 2, 2)
    assert "--host 0.0.0.0 is reached from other machines, and SAGA_API_TOKEN has 15 characters" in short.stderr
    assert "signing in needs SAGA_API_TOKEN" in done.stderr
    assert "--host 192.0.2.1 --port 0 can't be listened on" in nowhere.stderr


async def sign_in(client: httpx.AsyncClient, name: str = "Grace") -> None:
    """Sign in."""
    fields = {"token": await form_token(client, "/sign-in"), "name": name, "secret": SECRET.get_secret_value()}
    assert (await client.post("/sign-in", data=fields)).status_code == 303


async def bury(database: Database, *reasons: str, saga_id: str = "order-1") -> None:
    """Give a service a dead letter for each of these reasons."""
    letters = [
        DeadLetter(
            id=new_id(),
            service="payment",
            reason=reason,
            error=f"{reason}: nothing to be done",
            message=WireMessage(b"{}", "order.OrderCreated", message_id=new_id(), correlation_id=saga_id),
            at=SystemClock().now(),
        )
        for reason in reasons
    ]
    async with database.transaction() as session:
        await dead_letters.add(await session.connection(), letters)


async def order(client: httpx.AsyncClient, database: Database, verb: str, reason_is: str, *, name: str = "Ada") -> str:
    """Redrive or drop the letters of a reason, wait until it is done, and return the page that tells of it."""
    address = f"/attention/{verb}?service=payment&reason_is={reason_is}"
    fields = {"token": await form_token(client, address, of="/attention"), "reason": "mended", "name": name}
    (total,) = re.findall(r'name="total" value="([0-9]+)"', (await client.get(address)).text)
    fields |= {"service": "payment", "reason_is": reason_is, "job": new_id(), "total": total}
    before = len(await actors(database))
    answer = await client.post(f"/attention/{verb}", data=fields)
    assert answer.status_code == 303

    async def is_done() -> bool:
        return len(await actors(database)) > before

    await eventually(is_done, what=f"the {verb}")
    return answer.headers["location"]


async def actors(database: Database) -> list[str]:
    """Return who did what is in the audit, the first deed first."""
    async with database.reading() as connection:
        return [row["actor"] for row in reversed(await audit_log.listed(connection))]


async def form_token(client: httpx.AsyncClient, path: str = "/sagas/x", of: str = "") -> str:
    """Return the token of a page's first form, or of the one with that action; the console made it for this client."""
    for each in (path, "/sign-in"):
        page = (await client.get(each)).text
        if found := re.search(rf'action="{of}[^"]*".*?name="token" value="([^"]+)"', page, re.DOTALL):
            return found[1]
    raise AssertionError(f"no form on {path}")
