"""`saga verify` judges all sagas from the services' logs and tables, and says what it could not look at."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.inventory.models import Reservation, Stock, seed_stock
from services.inventory.models import metadata as inventory_tables
from services.payment.models import Payment
from services.payment.models import metadata as payment_tables
from tests.cli.conftest import SERVICES, service_options, write_log
from tests.orders import fulfilled_order, paid_order, refused_order
from tests.unit.protocol.test_invariants import numbered
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import outbox
from toolkit.persistence.database import Database
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_log import Entry

#: What is found in an order that stopped behind its payment, whose event others of its kind were heard of.
STOPPED = [("every saga ends", "order-2"), ("nothing is lost", "order-2")]
#: Where no broker is.
NOWHERE = "amqp://guest:guest@127.0.0.1:1/"


@pytest.fixture
def urls(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The services' databases, to be; the package has no accounts of its own unless a test wants them."""
    monkeypatch.setenv("SAGA_PACKAGE", "tests")
    return {name: f"sqlite:///{data_dir}/{name}.db" for name in SERVICES}


def write(urls: dict[str, str], entries: list[Entry]) -> None:
    for name, url in urls.items():
        asyncio.run(write_log(url, [entry for entry in entries if entry.service == name]))


def right() -> list[Entry]:
    return [*numbered(fulfilled_order("order-1")), *numbered(refused_order("order-3"))]


async def add_row(url: str) -> None:
    database = Database(url)
    message = WireMessage(b"{}", "payment.PaymentProcessed", message_id="1", correlation_id="order-1",
                          type="PaymentProcessed", timestamp=datetime.now(UTC))  # fmt: skip
    async with database.transaction() as session:
        await outbox.add(await session.connection(), [OutboxRow(id="1", message=message, due_at=datetime.now(UTC))])
    await database.close()


def violations(result: Any) -> list[tuple[str, str | None]]:
    return [(each["invariant"], each["saga_id"]) for each in json.loads(result.stdout)]


def test_two_types_under_one_id_verify_separately(saga, urls):
    gift = [replace(each, saga_type="gift") for each in numbered(refused_order("order-2"))]
    write(urls, [*right(), *gift, *numbered(paid_order("order-2"))])

    result = saga("verify", "-o", "json")

    assert [(each["saga_type"], each["invariant"]) for each in json.loads(result.stdout)] == [
        ("order", invariant) for invariant, _ in STOPPED
    ]


def test_sagas_that_ended_as_they_should_are_right(saga, urls):
    write(urls, right())

    result = saga("verify", "-o", "json")

    assert result.exit_code == 0
    assert violations(result) == []
    assert "2 sagas verified, all is right" in result.stderr


def test_a_violation_is_listed_and_ends_with_one(saga, urls):
    write(urls, [*right(), *numbered(paid_order("order-2"))])

    result = saga("verify", "-o", "json")

    assert result.exit_code == 1
    assert violations(result) == STOPPED


def test_a_table_has_a_line_for_each_violation(saga, urls):
    write(urls, [*right(), *numbered(paid_order("order-2"))])

    lines = saga("verify").stdout.splitlines()

    assert lines[0].split() == ["invariant", "saga", "id", "text"]
    assert lines[1].split() == [
        "every", "saga", "ends", "order-2", "it", "has", "not", "ended:", "process_payment", "is", "completed",
    ]  # fmt: skip
    assert len(lines) == 3


def test_settled_option_leaves_out_recent_sagas(saga, urls):
    running = [replace(entry, at=datetime.now(UTC)) for entry in numbered(paid_order("order-2"))]
    past = [replace(entry, at=datetime(2026, 1, 1, tzinfo=UTC)) for entry in right()]
    write(urls, [*past, *running])

    result = saga("verify", "--settled", "60", "-o", "json")

    assert result.exit_code == 0
    assert "left out: 1 saga that has just moved" in result.stderr
    assert "not checked: what is left over" in result.stderr


def test_unsent_outbox_row_is_left_over(saga, urls):
    write(urls, right())
    asyncio.run(add_row(urls["payment"]))

    result = saga("verify", "-o", "json")

    assert violations(result) == [("nothing is left over", None)]


def test_http_verifies_the_same_as_databases(saga, urls, serve):
    write(urls, [*right(), *numbered(paid_order("order-2"))])
    asyncio.run(add_row(urls["payment"]))
    named = {name: serve(name, url) for name, url in urls.items()}

    result = saga("verify", "-o", "json", *service_options(named))

    assert violations(result) == [*STOPPED, ("nothing is left over", None)]


def test_entries_beyond_one_page_are_read(saga, urls, serve):
    write(urls, [entry for number in range(300) for entry in numbered(fulfilled_order(f"order-{number}"))])
    named = urls | {"payment": serve("payment", urls["payment"])}

    result = saga("verify", *service_options(named))

    assert "300 sagas verified, all is right" in result.stderr


def test_one_of_a_kind_is_told_as_one(saga, urls):
    write(urls, numbered(fulfilled_order("order-1")))
    asyncio.run(add_row(urls["payment"]))

    assert "1 saga verified, 1 violation\n" in saga("verify").stderr


def test_missing_service_verifies_nothing(saga, urls):
    write(urls, right())

    result = saga("verify", *service_options(urls | {"shipping": "http://127.0.0.1:1"}))

    assert result.exit_code == 3
    assert "shipping is unreachable" in result.stderr


def test_that_no_broker_was_looked_at_is_said(saga, urls):
    write(urls, right())

    assert "not checked: the broker's queues" in saga("verify").stderr


def test_absent_broker_is_reported_once(saga_process, urls):
    write(urls, right())

    result = saga_process("verify", SAGA_BROKER_URL=NOWHERE)

    assert result.returncode == 3
    warning, judgement = result.stderr.splitlines()
    assert warning.startswith("warning: not checked: the broker's queues: the broker does not answer")
    assert judgement == "2 sagas verified, all is right as far as it was checked"


def test_violations_outweigh_an_absent_broker(saga_process, urls):
    write(urls, numbered(paid_order("order-1")))

    assert saga_process("verify", SAGA_BROKER_URL=NOWHERE).returncode == 1


def test_services_own_checks_run_too(saga, urls, monkeypatch):
    write(urls, right())
    monkeypatch.setenv("SAGA_PACKAGE", "services")
    asyncio.run(keep_goods(urls["inventory"]))
    asyncio.run(keep_money(urls["payment"]))

    result = saga("verify", "-o", "json")

    claims = [claim for claim, _ in violations(result)]
    assert claims == ["exactly the fulfilled orders hold goods, and no goods are lost"]
    assert "the accounts: there is no sqlite:///" in result.stderr
    assert "gateway.db; name the database in PAYMENT_GATEWAY_URL" in result.stderr


def test_own_checks_over_http_are_reported_unchecked(saga, urls, serve, monkeypatch):
    write(urls, right())
    monkeypatch.setenv("SAGA_PACKAGE", "services")

    result = saga("verify", *service_options({name: serve(name, url) for name, url in urls.items()}))

    assert result.exit_code == 0
    assert "name inventory by its database" in result.stderr


async def keep_goods(url: str) -> None:
    """Reserve nothing for the order that was fulfilled, and lose a tea pot."""
    database = Database(url)
    await database.create_tables(inventory_tables)
    async with database.transaction() as session:
        await seed_stock(session)
        (await session.get_one(Stock, "TEA-POT")).on_hand -= 1
        session.add(Reservation(order_id="order-3", is_released=True))
    await database.close()


async def keep_money(url: str) -> None:
    database = Database(url)
    await database.create_tables(payment_tables)
    async with database.transaction() as session:
        session.add(Payment(order_id="order-1", captured=100))
    await database.close()
