"""`saga attention` lists what is stuck, and nothing that only waits for its time."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from tests.cli.conftest import service_options, write_log
from tests.orders import FAILED, NOON, PENDING, entry
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import dead_letters, known_steps, outbox, overdue_steps
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.outbox import OutboxRow

NOW = datetime.now(UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


def message(since: datetime) -> WireMessage:
    return WireMessage(
        b"{}", "payment.PaymentProcessed", message_id="event-1", correlation_id="order-2", type="PaymentProcessed",
        timestamp=since,
    )  # fmt: skip


async def write(url: str, *rows: OutboxRow, given_up: list[DeadLetter] | None = None) -> None:
    database = Database(url)
    async with database.transaction() as session:
        connection = await session.connection()
        await outbox.add(connection, rows)
        await dead_letters.add(connection, given_up or [])
    await database.close()


async def write_overdue(url: str, step: str, since: datetime) -> None:
    row = {
        "saga_id": "order-2", "step": step, "saga_type": "order", "position": 1, "state": "completed",
        "saga_state": "Pending", "since": since, "next_at": NOON, "nudges": 3, "aborted": 0,
    }  # fmt: skip
    database = Database(url)
    async with database.transaction() as session:
        await (await session.connection()).execute(insert(overdue_steps.overdue).values(row))
    await database.close()


async def write_known_step(url: str, step: str) -> None:
    database = Database(url)
    async with database.transaction() as session:
        row = known_steps.known_steps.insert().values(service="payment", saga_type="order", step=step)
        await (await session.connection()).execute(row)
    await database.close()


def test_new_events_and_future_retries_are_not_stuck(saga, logs):
    retry = OutboxRow(id="row-1", message=message(NOW - HOUR), due_at=NOW + HOUR, destination="saga.payment")
    now = datetime.now(UTC)  # not when the module was read, which may be minutes ago
    new = OutboxRow(id="row-2", message=message(now - SECOND), due_at=now)
    asyncio.run(write(logs["payment"], retry, new))

    result = saga("attention", "-o", "json")

    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_late_outbox_rows_are_one_row_a_service(saga, logs):
    asyncio.run(write(logs["payment"], *late_rows()))

    result = saga("attention", "-o", "json")

    (row,) = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (row["service"], row["what"], row["count"], row["saga_id"]) == ("payment", "outbox", 2, "order-2")
    assert row["why"] == "sent twice without a confirm; the oldest is PaymentProcessed"


def test_only_outbox_lists_each_late_event(saga, logs, serve):
    asyncio.run(write(logs["payment"], *late_rows()))
    url = serve("payment", logs["payment"])

    result = saga("attention", "--only", "outbox", "-o", "json")

    rows = json.loads(result.stdout)
    assert [(row["why"], row["details"]["tries"], row["details"]["event_id"]) for row in rows] == [
        ("PaymentProcessed, sent twice without a confirm", 2, "event-1"),
        ("PaymentProcessed to saga.payment, never sent", 0, "event-1"),
    ]
    over_http = saga("attention", "--only", "outbox", f"--service=payment={url}", "-o", "json")
    assert (result.exit_code, over_http.stdout) == (1, result.stdout)


def late_rows() -> tuple[OutboxRow, OutboxRow]:
    event = OutboxRow(id="row-1", message=message(NOW - HOUR), due_at=NOW, tries=2)
    retry = OutboxRow(id="row-2", message=message(NOW), due_at=NOW - HOUR / 2, destination="saga.payment")
    return event, retry


def test_overdue_steps_are_listed_longest_waiting_first(saga, logs, serve):
    for minutes, name in enumerate(("payment", "inventory")):
        asyncio.run(write_overdue(logs[name], f"step of {name}", NOON + timedelta(minutes=minutes)))
    over_http = service_options(logs | {"payment": serve("payment", logs["payment"])})

    result = saga("attention", "--only", "overdue", "-o", "json")

    assert [(row["service"], row["step"], row["details"]) for row in json.loads(result.stdout)] == [
        (name, f"step of {name}", {"state": "completed", "saga_state": "Pending", "nudges": 3, "aborted": False})
        for name in ("payment", "inventory")
    ]
    assert saga("attention", "--only", "overdue", "-o", "json", *over_http).stdout == result.stdout


@pytest.mark.parametrize("kinds", [("overdue",), ("outbox",), ("overdue", "outbox"), ("contradiction",)])
def test_only_leaves_out_every_other_kind(saga, logs, kinds):
    asyncio.run(write(logs["payment"], *late_rows()))
    asyncio.run(write_overdue(logs["payment"], "process_payment", NOON))

    result = saga("attention", *(f"--only={kind}" for kind in kinds), "-o", "json")

    assert {row["what"] for row in json.loads(result.stdout)} == {"overdue", "outbox"} & set(kinds)


def test_a_contradiction_is_listed_with_its_reason(saga, logs, serve):
    odd = replace(
        entry("order-8", "payment", "process_payment", "ended", FAILED, "SagaEnded", position=None),
        error="still completed in a saga that ended failed",
    )
    asyncio.run(write_log(logs["payment"], [odd]))

    for where in (logs["payment"], serve("payment", logs["payment"])):
        result = saga("attention", f"--service=payment={where}", "-o", "json")

        (row,) = json.loads(result.stdout)
        assert result.exit_code == 1
        assert (row["what"], row["step"], row["saga_id"]) == ("contradiction", "process_payment", "order-8")
        assert row["why"] == "still completed in a saga that ended failed"


def test_sagas_at_an_undeclared_step_are_listed(saga, logs, serve):
    charged = entry("order-8", "payment", "charge_card", "completed", PENDING, "InventoryReserved")
    asyncio.run(write_log(logs["payment"], [charged]))
    asyncio.run(write_known_step(logs["payment"], "charge_card"))

    for where in (logs["payment"], serve("payment", logs["payment"])):
        result = saga("attention", f"--service=payment={where}", "-o", "json")

        (row,) = json.loads(result.stdout)
        assert result.exit_code == 1
        assert (row["what"], row["step"], row["count"]) == ("undeclared-step", "charge_card", 1)


def test_dead_letters_are_grouped_with_the_newest_error(saga, logs):
    given_up = [
        DeadLetter(id=f"letter-{number}", service="payment", reason="schema", error=f"fault {number}\n" + "!" * 999,
                   message=WireMessage(str(number).encode(), "x.Unknown", correlation_id=f"order-{number}"), at=NOW)
        for number in (1, 2)
    ]  # fmt: skip
    asyncio.run(write(logs["payment"], given_up=given_up))

    (row,) = json.loads(saga("attention", "-o", "json").stdout)

    assert (row["what"], row["count"], row["saga_id"]) == ("dead-letter", 2, "order-2")
    assert row["why"].startswith("schema: fault 2 !!!")
    assert len(row["why"]) < 220


def test_a_service_without_its_broker_is_listed(saga, logs, serve):
    url = serve("payment", logs["payment"], broker=False, relay=False)

    result = saga("attention", f"--service=payment={url}", "-o", "json")

    (row,) = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (row["service"], row["what"], row["since"], row["why"]) == ("payment", "not-ready", None, "no broker, relay")


def test_a_ready_service_is_not_listed(saga, logs, serve):
    result = saga("attention", f"--service=payment={serve('payment', logs['payment'])}")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "none\n")


def test_an_unreachable_service_gets_a_row(saga, logs, serve):
    there = serve("payment", logs["payment"], broker=False)

    away, wrong = "--service=shipping=http://127.0.0.1:1", f"--service=inventory={there}"
    result = saga("attention", f"--service=payment={there}", away, wrong, "-o", "jsonl")

    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 3
    assert [(row["service"], row["what"]) for row in rows] == [
        ("shipping", "unreachable"), ("inventory", "unreachable"), ("payment", "not-ready"),
    ]  # fmt: skip
    assert rows[0]["why"].startswith("http://127.0.0.1:1 does not answer")
    assert "warning: shipping is unreachable" in result.stderr
    assert saga("attention", "--only=overdue", away).exit_code == 3


def test_a_service_without_its_database_is_unreachable(saga, serve):
    url = serve("payment", "postgresql://postgres@127.0.0.1:1/payment", database=False)

    result = saga("attention", f"--service=payment={url}", "-o", "json")

    (row,) = json.loads(result.stdout)
    assert (result.exit_code, row["what"]) == (3, "unreachable")
    assert "answers 503: the database does not answer" in row["why"]
