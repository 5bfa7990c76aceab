"""`saga dead-letters`: what a service gave up is listed, shown, redriven and dropped, in its database or over HTTP."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import TOKEN
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import dead_letters
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.protocol.dead_letter_rows import DeadLetterSummary
from toolkit.protocol.rows import field_names

NOW = datetime.now(UTC)
WHY = ("--reason", "the gateway is back")


def dead_letter_of(name: str, saga_id: str, *, age: timedelta = timedelta(0)) -> DeadLetter:
    message = WireMessage(
        b'{"order_id": "%s"}' % saga_id.encode(),
        "shipping.ShipmentFailed",
        message_id=f"message-{name}",
        correlation_id=saga_id,
        type="ShipmentFailed",
        headers={"saga-type": "order", "attempt": 5},
    )
    return DeadLetter(
        id=name, service="payment", reason="retries spent", error="ConnectionError: gateway away", message=message,
        step="process_payment", at=NOW - age, attempts=5, traceback="Traceback:\n  line 7\n",
    )  # fmt: skip


def unreadable(name: str) -> DeadLetter:
    message = WireMessage(b"{broken", "inventory.InventoryReserved", message_id=f"message-{name}")
    return DeadLetter(id=name, service="payment", reason="not JSON", error="no JSON", message=message, at=NOW)


@pytest.fixture
def payment(logs) -> str:
    """The payment's database: dead letters of a running saga and an ended one, and an unreadable one."""
    asyncio.run(
        store(logs["payment"], [dead_letter_of("a", "order-2"), dead_letter_of("b", "order-1"), unreadable("c")])
    )
    return logs["payment"]


async def store(url: str, added: list[DeadLetter]) -> None:
    database = Database(url)
    async with database.transaction() as session:
        await dead_letters.add(await session.connection(), added)
    await database.close()


def rows(url: str, query: str) -> list[tuple]:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        return connection.execute(query).fetchall()


def test_dead_letters_are_listed_newest_first(saga, payment):
    result = saga("dead-letters", "ls", "payment", "-o", "json")

    listed = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [each["id"] for each in listed] == ["c", "b", "a"]
    assert all(tuple(each) == field_names(DeadLetterSummary) for each in listed)


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        (("--id", "a", "--id", "c"), ["c", "a"]),
        (("--reason-is", "not JSON"), ["c"]),
        (("--step", "process_payment"), ["b", "a"]),
        (("--saga", "order-1"), ["b"]),
        (("--older-than", "1h"), []),
        (("--older-than", "0s"), ["c", "b", "a"]),
        (("--limit", "1"), ["c"]),
    ],
)
def test_a_list_can_be_narrowed(saga, payment, chosen, ids):
    result = saga("dead-letters", "ls", "payment", "-o", "jsonl", *chosen)

    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ids


@pytest.mark.parametrize("verb", [("ls",), ("drop", *WHY)])
@pytest.mark.parametrize("is_running", [False, True])
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (
            "refund_payment",
            "refund_payment is a compensation, and its dead letters have the name of its step: write --step process",
        ),
        ("pay", "payment has no step 'pay'; there are: process_payment"),
    ],
)
def test_a_name_that_is_no_steps_is_refused(saga, payment, serve, monkeypatch, verb, is_running, name, fault):
    monkeypatch.setenv("SAGA_API_TOKEN", TOKEN)
    there = [f"--service=payment={serve('payment', payment)}"] if is_running else []

    result = saga("dead-letters", verb[0], "payment", "--step", name, *verb[1:], *there)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {fault}")


def test_dead_letters_of_a_removed_step_are_found(saga, logs):
    asyncio.run(store(logs["payment"], [replace(dead_letter_of("a", "order-2"), step="charge_card")]))

    result = saga("dead-letters", "ls", "payment", "--step", "charge_card", "-o", "jsonl")

    assert json.loads(result.stdout)["step"] == "charge_card"


def test_unknown_declarations_refuse_no_step_name(saga, payment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGA_PACKAGE", "elsewhere")

    result = saga("dead-letters", "ls", "payment", "--step", "pay")

    assert (result.exit_code, result.stderr) == (0, "none\n")


def test_a_letter_is_shown_whole(saga, payment):
    table = saga("dead-letters", "show", "payment", "a").stdout
    dead_letter = json.loads(saga("dead-letters", "show", "payment", "a", "-o", "json").stdout)

    assert 'body: {"order_id":"order-2"}' in table
    assert "traceback:\nTraceback:\n  line 7" in table
    assert dead_letter["headers"] == {"saga-type": "order", "attempt": 5}


def test_missing_dead_letter_names_the_listing_command(saga, payment):
    result = saga("dead-letters", "show", "payment", "z")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "error: payment has no such dead letter: 'z'; `saga dead-letters ls payment` lists those that it has\n"
    )


def test_redrive_goes_to_the_services_own_queue(saga, payment):
    result = saga("dead-letters", "redrive", "payment", "--saga", "order-2", *WHY, "-o", "json")

    assert result.exit_code == 0
    assert [(row["id"], row["outcome"]) for row in json.loads(result.stdout)] == [("a", "redriven")]
    assert rows(payment, "SELECT message_id, destination FROM saga_outbox") == [("message-a", "saga.payment")]
    log = json.loads(saga("log", "payment", "--saga", "order-2", "-o", "json").stdout)
    assert (log[-1]["to_state"], log[-1]["error"]) == ("redriven", "the gateway is back")


def test_redrive_queue_follows_the_exchange_setting(saga, payment, monkeypatch):
    monkeypatch.setenv("SAGA_EXCHANGE", "shop")

    saga("dead-letters", "redrive", "payment", "--id", "a", *WHY)

    assert rows(payment, "SELECT destination FROM saga_outbox") == [("shop.payment",)]


def test_redrive_of_an_ended_saga_is_refused(saga, payment):
    result = saga("dead-letters", "redrive", "payment", "--all", *WHY)

    assert result.exit_code == 1
    assert result.stderr.startswith("1 of 3 refused; the first: saga order-1 has ended (Completed)")
    assert rows(payment, "SELECT id FROM saga_dead_letters") == [("b",)]


def test_a_redrive_twice_is_harmless(saga, payment):
    arguments = ("dead-letters", "redrive", "payment", "--id", "a", *WHY)

    first, second = saga(*arguments), saga(*arguments)

    assert (first.exit_code, second.exit_code) == (0, 1)
    assert second.stderr.startswith("error: payment has no such dead letter: 'a'; ")
    assert len(rows(payment, "SELECT * FROM saga_outbox")) == 1


@pytest.mark.parametrize("verb", ["redrive", "drop"])
def test_unknown_id_among_others_is_a_problem(saga, payment, verb):
    result = saga("dead-letters", verb, "payment", "--id", "a", "--id", "y", "--id", "z", *WHY, "-o", "json")

    assert [row["id"] for row in json.loads(result.stdout)] == ["a"]
    assert result.exit_code == 1
    assert "payment has no such dead letter: 'y', 'z'; " in result.stderr


def test_no_dead_letters_of_a_reason_is_fine(saga, payment):
    result = saga("dead-letters", "drop", "payment", "--reason-is", "schema", *WHY)

    assert (result.exit_code, result.stderr) == (0, "payment has no such dead letters\n")


def test_who_did_it_and_why_is_kept(saga, payment):
    saga("dead-letters", "redrive", "payment", "--id", "a", *WHY)
    saga("dead-letters", "drop", "payment", "--id", "b", "--reason", "the customer has gone")

    audit = rows(payment, "SELECT verb, saga_id, reason, subject FROM saga_audit ORDER BY id")
    assert audit == [
        ("redrive", "order-2", "the gateway is back", "a"),
        ("drop", "order-1", "the customer has gone", "b"),
    ]
    assert all("@" in actor for (actor,) in rows(payment, "SELECT actor FROM saga_audit"))


def test_dry_run_needs_no_reason_and_changes_nothing(saga, payment):
    result = saga("dead-letters", "redrive", "payment", "--all", "--dry-run", "-o", "json")

    assert [row["outcome"] for row in json.loads(result.stdout)] == [
        "would be redriven",
        "refused",
        "would be redriven",
    ]
    assert len(rows(payment, "SELECT * FROM saga_dead_letters")) == 3
    assert rows(payment, "SELECT * FROM saga_outbox") == rows(payment, "SELECT * FROM saga_audit") == []


def test_many_letters_go_bite_by_bite(saga, logs):
    added = [dead_letter_of(f"letter-{number:03}", f"saga-{number}") for number in range(250)]
    asyncio.run(store(logs["payment"], added))

    result = saga("dead-letters", "redrive", "payment", "--all", *WHY, "-o", "jsonl")

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 250
    assert rows(logs["payment"], "SELECT count(*) FROM saga_outbox") == [(250,)]


def test_http_does_the_same_as_the_database(saga, payment, serve, monkeypatch):
    monkeypatch.setenv("SAGA_API_TOKEN", TOKEN)
    there = f"--service=payment={serve('payment', payment)}"
    listed = saga("dead-letters", "ls", "payment", there, "-o", "json")
    shown = saga("dead-letters", "show", "payment", "a", there, "-o", "json")

    assert listed.stdout == saga("dead-letters", "ls", "payment", "-o", "json").stdout
    assert shown.stdout == saga("dead-letters", "show", "payment", "a", "-o", "json").stdout
    redriven = saga("dead-letters", "redrive", "payment", "--all", *WHY, there, "-o", "json")
    assert redriven.exit_code == 1
    assert [row["outcome"] for row in json.loads(redriven.stdout)] == ["redriven", "refused", "redriven"]
    dropped = saga("dead-letters", "drop", "payment", "--step", "process_payment", *WHY, there, "-o", "json")
    assert [row["id"] for row in json.loads(dropped.stdout)] == ["b"]
    assert rows(payment, "SELECT count(*) FROM saga_audit") == [(3,)]


@pytest.mark.parametrize(
    ("token", "fault"), [(None, "; none is set here"), ("wrong", "; the one that is set here is another")]
)
def test_no_write_over_http_without_a_token(saga, payment, serve, monkeypatch, token, fault):
    if token:
        monkeypatch.setenv("SAGA_API_TOKEN", token)
    url = serve("payment", payment)

    result = saga("dead-letters", "redrive", "payment", "--all", *WHY, f"--service=payment={url}")

    assert (result.exit_code, result.stdout) == (2, "")
    cure = "show the token of payment: export SAGA_API_TOKEN=… with the one that it was started with"
    assert result.stderr.startswith(f"error: {url} answers 401: {cure}{fault}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("redrive", "payment", *WHY), "select some: by --id"),
        (("redrive", "payment", "--all", "--id", "a", *WHY), "or --all without any of these"),
        (("redrive", "payment", "--all"), "a reason is required: --reason TEXT"),
        (("drop", "payment", "--all", "--reason", " "), "a reason is required: --reason TEXT"),
        (("drop", "payment", "--all", "--reason", "x" * 501), "--reason has 501 characters"),
        (("ls", "payment", "--older-than", "soon"), "--older-than 'soon' is no duration: write 90s, 5min, 1h, 30d"),
        (("ls", "payment", "--older-than", "-1"), "--older-than '-1' is negative"),
        (("ls", "payments"), "there is no service 'payments' to read; there are: inventory, notification, payment"),
    ],
)
def test_wrong_use_is_said_in_one_line(saga, payment, arguments, fault):
    result = saga("dead-letters", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert fault in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "away", ["http://127.0.0.1:1", "sqlite:////nowhere/payment.db", "postgresql://postgres@127.0.0.1:1/payment"]
)
@pytest.mark.parametrize("verb", [("ls",), ("redrive", "--all", *WHY)])
def test_a_service_that_is_away_ends_with_3(saga, verb, away):
    result = saga("dead-letters", verb[0], "payment", *verb[1:], f"--service=payment={away}")

    assert (result.exit_code, result.stdout) == (3, "")
    assert len(result.stderr.splitlines()) == 1
