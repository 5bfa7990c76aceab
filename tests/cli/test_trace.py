"""`saga trace` tells one saga's story from all services, and never takes silence for "not done"."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from tests.cli.conftest import ORDERS, service_options, write_log
from tests.orders import NOON, PENDING, entry
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import dead_letters
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.protocol.log_entry import DetailedEntry
from toolkit.protocol.rows import field_names


def test_timeline_follows_cause_and_effect(saga, logs):
    result = saga("trace", "order-3", "-o", "json")

    timeline = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (timeline["saga_id"], timeline["saga_type"], timeline["state"]) == ("order-3", "order", "Failed")
    assert [(each["step"], each["to_state"]) for each in timeline["entries"]] == [
        (each.step, each.to_state) for each in ORDERS if each.saga_id == "order-3"
    ]
    assert timeline["unreachable"] == {}


def test_entry_has_detailed_fields_and_utc_times(saga, logs):
    timeline = json.loads(saga("trace", "order-1", "-o", "json").stdout)

    assert all(tuple(each) == field_names(DetailedEntry) for each in timeline["entries"])
    assert timeline["entries"][0]["at"] == "2026-05-04T12:00:00Z"


def test_table_marks_compensations_without_colour(saga, logs):
    lines = saga("trace", "order-3").stdout.splitlines()

    assert lines[0] == "saga order-3 (order): Failed, begun 2026-05-04 12:00:00.000Z"
    assert [[sign, *facts[:3]] for sign, _, *facts in map(str.split, lines[3:10])] == [
        ["→", "inventory", "reserve_inventory", "completed"],
        ["…", "payment", "process_payment", "executing"],
        ["→", "payment", "process_payment", "completed"],
        ["✗", "shipping", "create_shipment", "failed"],
        ["↩", "payment", "process_payment", "compensated"],
        ["↩", "inventory", "reserve_inventory", "compensated"],
        ["→", "notification", "send_cancellation_notice", "completed"],
    ]
    assert lines[6].endswith("ShipmentFailed: we do not ship to AQ")
    assert "\x1b" not in "".join(lines)


def test_undeclared_step_is_named(saga, data_dir):
    charged = entry("order-9", "payment", "charge_card", "completed", PENDING, "InventoryReserved")
    asyncio.run(write_log(f"sqlite:///{data_dir}/payment.db", [charged]))

    result = saga("trace", "order-9")

    assert result.exit_code == 0
    assert result.stderr.startswith("warning: payment has entries of charge_card, which it does not declare (any more)")


def test_long_reason_is_cut_in_tables_only(saga, data_dir):
    reason = "GatewayError: " + "no answer, " * 300
    tried = [
        replace(entry("order-9", "payment", "process_payment", "retrying", PENDING, "InventoryReserved", position=None),
                error=reason, attempt=number)
        for number in (1, 2)
    ]  # fmt: skip
    asyncio.run(write_log(f"sqlite:///{data_dir}/payment.db", tried))

    lines = saga("trace", "order-9").stdout.splitlines()
    log = saga("log", "payment").stdout
    timeline = json.loads(saga("trace", "order-9", "-o", "json").stdout)

    told = [line for line in lines if "process_payment" in line and "GatewayError" in line]
    assert len(told) == 4  # the sentence, both attempts, and what is still to come
    assert all("…" in line and line.count("no answer") < 20 for line in told)
    assert log.count("…") == 2
    assert log.count("no answer") < 40
    assert [each["error"] for each in timeline["entries"]] == [reason, reason]


def test_jsonl_is_the_whole_story_in_one_line(saga, logs):
    result = saga("trace", "order-2", "-o", "jsonl")

    assert len(result.stdout.splitlines()) == 1
    assert json.loads(result.stdout)["state"] == "Pending"


def test_unknown_saga_names_the_listing_commands(saga, logs):
    result = saga("trace", "order-404")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "error: no service knows a saga 'order-404'; `saga ls` lists those that they know, "
        "and `saga attention` what could not be read\n"
    )


def test_saga_with_only_a_dead_letter_names_it(saga, logs):
    wire = WireMessage(body=b"{}", routing_key="order.OrderCreated", correlation_id="order-405", type="OrderCreated")
    dead_letter = DeadLetter(id="a-letter", service="inventory", reason="schema", error="lines", message=wire, at=NOON)
    asyncio.run(keep(logs["inventory"], dead_letter))

    result = saga("trace", "order-405")

    assert result.exit_code == 1
    assert result.stdout == (
        "No service knows a saga order-405. "
        "A dead letter is left in inventory: see `saga dead-letters show inventory a-letter`.\n"
    )
    assert result.stderr == ""


async def keep(url, dead_letter):
    database = Database(url)
    async with database.transaction() as session:
        await dead_letters.add(await session.connection(), [dead_letter])
    await database.close()


def test_timeline_mixes_http_and_databases(saga, logs, serve):
    named = logs | {"payment": serve("payment", logs["payment"]), "shipping": serve("shipping", logs["shipping"])}

    result = saga("trace", "order-3", "-o", "json", *service_options(named))

    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(saga("trace", "order-3", "-o", "json").stdout)


@pytest.mark.parametrize(
    ("away", "reason"),
    [
        ("http://127.0.0.1:1", "does not answer: ConnectError"),
        ("sqlite:////nowhere/shipping.db", "there is no file /nowhere/shipping.db"),
        ("postgresql://postgres@127.0.0.1:1/shipping", "can't be read: "),
    ],
)
def test_trace_without_a_service_names_it(saga, logs, away, reason):
    result = saga("trace", "order-3", "-o", "json", *service_options(logs | {"shipping": away}))

    timeline = json.loads(result.stdout)
    assert result.exit_code == 3
    assert timeline["state"] == "Failed"
    assert {each["service"] for each in timeline["entries"]} == {"inventory", "payment", "notification"}
    assert reason in timeline["unreachable"]["shipping"]
    assert "warning: shipping is unreachable" in result.stderr


def test_saga_unknown_to_reachable_services_is_reported(saga, logs):
    result = saga("trace", "order-404", *service_options(logs | {"shipping": "http://127.0.0.1:1"}))

    assert result.exit_code == 3
    assert "no service that can be reached knows the saga 'order-404' yet" in result.stderr


def test_unreachable_databases_password_is_hidden(saga, logs):
    result = saga("trace", "order-3", "--service=payment=postgresql://shop:secret@127.0.0.1:1/payment")

    assert result.exit_code == 3
    assert "secret" not in result.output


def test_answer_of_another_service_is_rejected(saga, logs, serve):
    result = saga("trace", "order-3", f"--service=shipping={serve('payment', logs['payment'])}")

    assert result.exit_code == 3
    assert "is not shipping: payment answers there" in result.stderr


def test_service_without_database_is_unreachable_over_http(saga, serve):
    url = serve("payment", "postgresql://postgres@127.0.0.1:1/payment")

    result = saga("trace", "order-3", f"--service=payment={url}")

    assert result.exit_code == 3
    assert f"{url} answers 503: the database does not answer" in result.stderr
