"""`saga attention` lists what is stuck, and nothing that only waits for its time."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.cli.conftest import write_log
from tests.orders import FAILED, PENDING, entry
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import dead_letters, known_steps, outbox
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


async def write(url: str, *rows: OutboxRow, letters: list[DeadLetter] | None = None) -> None:
    database = Database(url)
    async with database.transaction() as session:
        connection = await session.connection()
        await outbox.add(connection, rows)
        await dead_letters.add(connection, letters or [])
    await database.close()


def test_nothing_is_stuck_where_what_waits_is_new_or_waits_for_its_time(saga, logs):
    retry = OutboxRow(id="row-1", message=message(NOW - HOUR), due_at=NOW + HOUR, destination="saga.payment")
    now = datetime.now(UTC)  # not when the module was read, which may be minutes ago
    new = OutboxRow(id="row-2", message=message(now - SECOND), due_at=now)
    asyncio.run(write(logs["payment"], retry, new))

    result = saga("attention", "-o", "json")

    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_what_should_have_gone_out_long_ago_is_stuck_and_says_how_often_it_was_sent(saga, logs):
    late = OutboxRow(id="row-1", message=message(NOW - HOUR), due_at=NOW, tries=2)
    forgotten = OutboxRow(id="row-2", message=message(NOW), due_at=NOW - HOUR / 2, destination="saga.payment")
    asyncio.run(write(logs["payment"], late, forgotten))

    result = saga("attention", "-o", "json")

    (row,) = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (row["service"], row["what"], row["count"], row["saga_id"]) == ("payment", "outbox", 2, "order-2")
    assert row["why"] == "sent twice without a confirm; the oldest is PaymentProcessed"


def test_a_step_that_contradicts_its_sagas_end_stands_there_with_the_reason(saga, logs, serve):
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


def test_sagas_at_a_step_that_their_service_does_not_declare_stand_there(saga, logs, serve):
    charged = entry("order-8", "payment", "charge_card", "completed", PENDING, "InventoryReserved")
    asyncio.run(write_log(logs["payment"], [charged]))
    asyncio.run(note_step(logs["payment"], "charge_card"))

    for where in (logs["payment"], serve("payment", logs["payment"])):
        result = saga("attention", f"--service=payment={where}", "-o", "json")

        (row,) = json.loads(result.stdout)
        assert result.exit_code == 1
        assert (row["what"], row["step"], row["count"]) == ("undeclared step", "charge_card", 1)


async def note_step(url: str, step: str) -> None:
    database = Database(url)
    async with database.transaction() as session:
        noted = known_steps.known_steps.insert().values(service="payment", saga_type="order", step=step)
        await (await session.connection()).execute(noted)
    await database.close()


def test_dead_letters_stand_in_groups_with_the_newest_error_in_one_line(saga, logs):
    letters = [
        DeadLetter(id=f"letter-{number}", service="payment", reason="schema", error=f"fault {number}\n" + "!" * 999,
                   message=WireMessage(str(number).encode(), "x.Unknown", correlation_id=f"order-{number}"), at=NOW)
        for number in (1, 2)
    ]  # fmt: skip
    asyncio.run(write(logs["payment"], dead_letters=letters))

    (row,) = json.loads(saga("attention", "-o", "json").stdout)

    assert (row["what"], row["count"], row["saga_id"]) == ("dead letters", 2, "order-2")
    assert row["why"].startswith("schema: fault 2 !!!")
    assert len(row["why"]) < 220


def test_a_service_without_its_broker_needs_somebody_though_nothing_is_stuck_in_it(saga, logs, serve):
    url = serve("payment", logs["payment"], broker=False, relay=False)

    result = saga("attention", f"--service=payment={url}", "-o", "json")

    (row,) = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (row["service"], row["what"], row["since"], row["why"]) == ("payment", "not ready", None, "no broker, relay")


def test_a_service_that_is_ready_needs_nobody(saga, logs, serve):
    result = saga("attention", f"--service=payment={serve('payment', logs['payment'])}")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "none\n")


def test_a_service_that_can_t_be_asked_has_a_row_and_the_command_ends_with_3(saga, logs, serve):
    there = serve("payment", logs["payment"], broker=False)

    away, wrong = "--service=shipping=http://127.0.0.1:1", f"--service=inventory={there}"
    result = saga("attention", f"--service=payment={there}", away, wrong, "-o", "jsonl")

    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 3
    assert [(row["service"], row["what"]) for row in rows] == [
        ("shipping", "unreachable"), ("inventory", "unreachable"), ("payment", "not ready"),
    ]  # fmt: skip
    assert rows[0]["why"].startswith("http://127.0.0.1:1 does not answer")


def test_of_a_service_without_its_database_that_is_said(saga, serve):
    url = serve("payment", "postgresql://postgres@127.0.0.1:1/payment", database=False)

    result = saga("attention", f"--service=payment={url}", "-o", "json")

    (row,) = json.loads(result.stdout)
    assert (result.exit_code, row["what"]) == (3, "unreachable")
    assert "answers 503: the database does not answer" in row["why"]
