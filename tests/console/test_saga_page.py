"""One saga's page, read from the databases of services: retries, search, two types, escaping, speed."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from services.inventory.app import app as inventory
from services.payment.app import app as payment
from tests.console.one_service import local_console
from tests.orders import PENDING, entry, paid_order, reserved
from toolkit import Service
from toolkit.client.database_client import DatabaseClient
from toolkit.clock import SystemClock
from toolkit.declaration.contract import Contract
from toolkit.ids import derived_id, new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import audit_log, dead_letters, outbox, saga_log
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_log import Entry

#: The limit for reading one saga, in seconds.
ENOUGH = 0.5


NOW = datetime.now(UTC)


async def test_a_retried_step_shows_its_next_attempt(tmp_path: Path):
    failed = entry("order-2", "payment", "process_payment", "retrying", PENDING, "InventoryReserved", position=None)
    failed = replace(failed, attempt=2, error="TimeoutError: the bank is silent", at=NOW)
    again = WireMessage(
        b"{}",
        "payment",
        message_id=derived_id("order", "order-2", "InventoryReserved"),
        correlation_id="order-2",
        type="InventoryReserved",
        timestamp=NOW,
    )
    due = NOW + timedelta(seconds=90)
    row = OutboxRow(id=new_id(), message=again, due_at=due, destination="saga.payment")

    async with console(tmp_path, [(inventory, [reserved("order-2")]), (payment, [failed])], waiting=[row]) as browser:
        page = (await browser.get("/sagas/order-2")).text

    assert "attempt 2 of 4 failed" in page
    assert f'next at <time datetime="{due.isoformat(timespec="milliseconds")}"' in page
    assert "the bank is silent" in page
    assert "○" in page
    assert "send_confirmation" not in page  # its contract is not among these services'


async def test_a_timeline_of_two_hundred_entries_is_fast(tmp_path: Path):
    retries = [
        entry("order-2", "payment", "process_payment", "retrying", PENDING, "InventoryReserved", position=None)
        for _ in range(200)
    ]
    log = [each for each in paid_order("order-2") if each.service == "payment"]

    async with console(tmp_path, [(inventory, [reserved("order-2")]), (payment, [*retries, *log])]) as browser:
        await browser.get("/sagas/order-2")
        took = []
        for _ in range(5):
            begun = time.monotonic()
            page = await browser.get("/sagas/order-2")
            took.append(time.monotonic() - begun)

    assert min(took) < ENOUGH
    assert page.text.count("retrying") > 200
    assert "later entries are not shown here" in page.text


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "&lt;b&gt;", "'\"><img src=x>"])
async def test_log_texts_are_escaped_in_pages(tmp_path: Path, text: str):
    evil = replace(reserved("order-2"), step=text, error=text, emitted_type=text, service="inventory")

    async with console(tmp_path, [(inventory, [evil])]) as browser:
        page = (await browser.get("/sagas/order-2")).text
        listed = (await browser.get("/sagas")).text

    assert "<script>alert" not in page + listed
    assert "<img src=x" not in page + listed
    assert "alert(1)" in page or "lt;b" in page or "img src" in page


async def test_a_saga_with_only_dead_letters_is_found(tmp_path: Path):
    wire = WireMessage(b"{}", "order.OrderCreated", correlation_id="order-2", type="OrderCreated")
    dead_letter = DeadLetter(id=new_id(), service="inventory", reason="schema", error="no lines", message=wire, at=NOW)

    async with console(tmp_path, [(payment, []), (inventory, [])], given_up=[dead_letter]) as browser:
        found = await browser.get("/sagas", params={"q": "order-2"})
        unknown = await browser.get("/sagas", params={"q": "order-3"})
        page = await browser.get(found.headers["location"])

    assert (found.status_code, found.headers["location"]) == (303, "/sagas/order-2")
    assert "schema" in page.text
    assert (unknown.status_code, "No service knows" in unknown.text) == (200, True)


async def test_an_id_of_two_types_offers_a_choice(tmp_path: Path):
    gift = [replace(each, saga_type="gift") for each in paid_order("order-2") if each.service == "payment"]
    order = [each for each in paid_order("order-2") if each.service == "payment"]

    async with console(tmp_path, [(inventory, [reserved("order-2")]), (payment, [*order, *gift])]) as browser:
        several = await browser.get("/sagas/order-2")
        as_json = await browser.get("/sagas/order-2", params={"format": "json"})
        found = await browser.get("/sagas", params={"q": "order-2"})
        pages = {kind: (await browser.get("/sagas/order-2", params={"type": kind})).text for kind in ("gift", "order")}

    assert (several.status_code, as_json.status_code, as_json.json()["types"]) == (300, 300, ["gift", "order"])
    for page in (several.text, found.text):
        assert all(f'href="/sagas/order-2?type={kind}"' in page for kind in ("gift", "order"))
    assert "reserve_inventory" in pages["order"]
    assert "reserve_inventory" not in pages["gift"].partition("Actions")[0].partition("timeline")[2]
    assert all(f'name="type" value="{kind}"' in page for kind, page in pages.items())


async def test_a_nudge_reaches_the_pages_saga_type(tmp_path: Path):
    gift = [replace(each, saga_type="gift", emitted_body="{}") for each in paid_order("order-2")]
    order = [replace(each, emitted_body="{}") for each in paid_order("order-2")]
    log = [each for each in [*gift, *order] if each.service == "payment"]

    async with console(tmp_path, [(payment, log)]) as browser:
        page = (await browser.get("/sagas/order-2", params={"type": "gift"})).text
        fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.partition('action="/nudge"')[2]))
        answer = await browser.post(
            "/nudge", data=fields | {"reason": "why", "name": "ada"}, headers={"Origin": "http://localhost:8080"}
        )
        audited = await audit_of(tmp_path)

    assert answer.headers["location"].startswith("/sagas/order-2?type=gift&submission=")
    assert audited == [("nudge", "gift")]


async def test_control_characters_are_escaped_in_json(tmp_path: Path):
    body = r'{"order_id": "lone \ud800, turned \u202e"}'
    refused = replace(reserved("order-2"), error="turned \u202e and \x9b", emitted_body=body)

    async with console(tmp_path, [(inventory, [refused])]) as browser:
        page = await browser.get("/sagas/order-2")
        document = (await browser.get("/sagas/order-2?format=json")).text

    (shown,) = re.findall(r"<pre[^>]*Event out of reserve_inventory[^>]*>(.*?)</pre>", page.text, re.DOTALL)
    assert r"lone \ud800, turned \u202e" in shown
    assert r"turned \u202e and \u009b" in document
    assert not re.search("[\x7f-\x9f\u202e]", shown + document)


async def audit_of(directory: Path) -> list[tuple[str, str]]:
    database = Database(f"sqlite:///{directory}/payment.db")
    async with database.reading() as connection:
        rows = await audit_log.listed(connection)
    await database.close()
    return [(row.verb, row.saga_type) for row in rows]


@asynccontextmanager
async def console(
    directory: Path,
    logs: list[tuple[Service, list[Entry]]],
    *,
    waiting: Sequence[OutboxRow] = (),
    given_up: Sequence[DeadLetter] = (),
) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of a console of services with these entries; the last service has the outbox rows and dead letters."""
    clients = []
    for service, entries in logs:
        database = Database(f"sqlite:///{directory}/{service.name}.db")
        await database.create_tables()
        async with database.transaction() as session:
            await saga_log.append(await session.connection(), entries)
            if service is logs[-1][0]:
                await outbox.add(await session.connection(), waiting)
                await dead_letters.add(await session.connection(), given_up)
        await database.close()
        clients.append(
            DatabaseClient(
                service.name,
                database.url,
                queue=f"saga.{service.name}",
                declared=lambda service=service: service,
                contract=contract_of(service),
                clock=SystemClock(),
            )
        )
    async with local_console(clients, token=None) as browser:
        yield browser
    for each in clients:
        await each.close()


def contract_of(service: Service) -> Callable[[], Contract]:
    """Return a function that returns a service's contract."""
    return lambda: Contract.of(service)
