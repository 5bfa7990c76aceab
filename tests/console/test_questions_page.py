"""The page `/questions` lists what waits for an answer; its form, made from the event's schema, gives it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from tests.conformance.world import message
from tests.console.one_service import form_token, local_console
from tests.eventually import eventually
from tests.example_sagas.approval import Declined, PurchaseWanted, purchase_saga, services
from tests.example_sagas.travel import Script
from toolkit import Settings
from toolkit.client.service_locations import in_database
from toolkit.clock import SystemClock
from toolkit.messaging.envelope import starting_message
from toolkit.persistence import audit_log, saga_log_queries
from toolkit.protocol.fence import StepState
from toolkit.transport.embedded import Embedded

ANSWER = "/questions/answer?service=desk&saga=desk-1&type=purchase&event="


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Embedded]:
    """The services of a purchase whose question is open."""
    settings = Settings(broker_url="embedded", data_dir=tmp_path, relay_poll=timedelta(milliseconds=100))
    async with Embedded(services(Script()), settings) as embedded:
        event = PurchaseWanted(purchase_id="desk-1")
        await embedded.publish(starting_message(purchase_saga.name, "desk-1", event, now=SystemClock().now()))
        yield embedded


@pytest.fixture
async def browser(desk: Embedded, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A browser on a console of these services, once the question is open."""
    declared = {each.name: each for each in services(Script())}
    settings = Settings(broker_url="embedded", data_dir=tmp_path)
    clients = [in_database(name, settings.database_for(name), settings, declared.__getitem__) for name in declared]
    async with local_console(clients) as browser:

        async def is_open() -> bool:
            return "desk-1" in (await browser.get("/questions")).text

        await eventually(is_open)
        yield browser
    for client in clients:
        await client.close()


async def answered(browser: httpx.AsyncClient, event: str, **fields: str) -> httpx.Response:
    """Submit the form of an answer, and return the page that follows."""
    page = (await browser.get(ANSWER + event)).text
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    named = {f"field.{name}": value for name, value in fields.items()}
    return await browser.post(
        "/questions/answer", data=hidden | named | {"reason": "within the budget", "name": "Ada"}, follow_redirects=True
    )


async def test_an_open_question_is_listed_with_its_answers(browser: httpx.AsyncClient) -> None:
    page = (await browser.get("/questions")).text

    assert 'href="/sagas/desk-1?type=purchase"' in page
    for event in ("Approved", "Declined"):
        assert (ANSWER + event).replace("&", "&amp;") in page


async def test_the_form_follows_the_events_schema(browser: httpx.AsyncClient) -> None:
    page = (await browser.get(ANSWER + "Approved")).text

    assert re.search(r'<input id="input-limit" name="field.limit" type="number" step="1" value="1000"', page)
    assert '<label for="input-note">note (optional)' in page
    assert "field.purchase_id" not in page
    assert "&#34;price&#34;: 800" in page
    assert "&#34;iban&#34;: &#34;***&#34;" in page


async def test_a_submitted_answer_is_taken_and_audited(browser: httpx.AsyncClient, desk: Embedded) -> None:
    page = await answered(browser, "Approved", limit="900", note="fine")

    assert "desk: decide has taken Approved" in page.text
    assert "Approved by Ada (console)" in page.text
    async with desk.runtimes["desk"].database.reading() as connection:
        (entry,) = await audit_log.listed(connection)
    assert (entry.actor, entry.verb, entry.reason) == ("Ada (console)", "answer", "within the budget")
    assert StepState.COMPLETED in page.text

    async def is_closed() -> bool:
        return "No question is open" in (await browser.get("/questions")).text

    await eventually(is_closed)  # pages that are loaded at the same time share the services' answers


async def test_a_second_answer_shows_who_decided(browser: httpx.AsyncClient) -> None:
    form = (await browser.get(ANSWER + "Declined")).text
    await answered(browser, "Approved", limit="900")
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))

    late = hidden | {"field.why": "too dear", "reason": "too dear", "name": "Bob"}
    page = await browser.post("/questions/answer", data=late, follow_redirects=True)

    assert "desk: refused: decide was answered with Approved by Ada (console) at" in page.text
    assert "No step of desk waits for this answer" in (await browser.get(ANSWER + "Declined")).text


async def test_the_graph_shows_the_answer_that_counts(browser: httpx.AsyncClient, desk: Embedded) -> None:
    await answered(browser, "Approved", limit="900")
    late = Declined(purchase_id="desk-1", why="too dear")
    await desk.publish(message(late, "desk-1", saga_type="purchase", event_id="late"))

    async def is_ignored() -> bool:
        async with desk.runtimes["desk"].database.reading() as connection:
            entries = await saga_log_queries.entries(connection, saga_id="desk-1")
        return ("ignored", "Declined") in [(each.to_state, each.event_type) for each in entries]

    await eventually(is_ignored)
    page = (await browser.get("/sagas/desk-1")).text

    boxes = re.findall(r'<g class="(\w*)">\s*<rect class="box"[^>]*>\s*<text class="name"[^>]*>(\w+)<', page)
    assert {("good", "Approved"), ("", "Declined")} <= set(boxes)


async def test_an_answer_under_way_is_no_refusal(browser: httpx.AsyncClient, desk: Embedded) -> None:
    await desk.runtimes["desk"].stop()  # as a service that is down; its relay takes the answer later

    page = (await answered(browser, "Approved", limit="900")).text

    assert "desk: sent: decide has not taken it yet" in page
    assert '<section class="note" role="status"' in page


@pytest.mark.parametrize(
    ("limit", "fault"),
    [("much", "limit: &#39;much&#39; is not a number"), ("1.5", "limit: Input should be a valid")],
)
async def test_a_wrong_value_is_reported(browser: httpx.AsyncClient, limit: str, fault: str) -> None:
    assert fault in (await answered(browser, "Approved", limit=limit)).text


async def test_an_answer_needs_the_pages_own_form(browser: httpx.AsyncClient) -> None:
    await form_token(browser, ANSWER + "Approved")
    fields = {"service": "desk", "saga": "desk-1", "type": "purchase", "event": "Approved", "reason": "x", "name": "x"}

    assert (await browser.post("/questions/answer", data=fields | {"token": "forged"})).status_code == 403


@pytest.mark.parametrize("query", ["service=desk&event=Shrugged&type=purchase", "service=none&event=Approved"])
async def test_an_unknown_answer_is_not_found(browser: httpx.AsyncClient, query: str) -> None:
    assert (await browser.get(f"/questions/answer?{query}")).status_code == 404
