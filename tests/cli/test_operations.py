"""`saga abort`, `saga replay` and `saga prune`: what an operator does to sagas by hand."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import delete

from services.events import order_saga
from services.inventory.app import app as inventory_service
from tests.cli.conftest import TOKEN, service_options
from tests.eventually import eventually
from toolkit import Settings
from toolkit.cli.payload import example_of, validated
from toolkit.clock import SystemClock
from toolkit.messaging.envelope import starting_message
from toolkit.persistence import outbox, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.protocol.pending_rows import UnsentMessage
from toolkit.transport.embedded import Embedded

EMBEDDED = {"SAGA_BROKER_URL": "embedded"}
WHY = ("--reason", "the customer has called")


@pytest.fixture
def reserved(data_dir) -> str:
    """An order whose goods are reserved, and whose event was lost on its way to the payment."""
    asyncio.run(reserve(Settings(data_dir=data_dir, broker_url="embedded"), "order-9"))
    return "order-9"


async def reserve(settings: Settings, order_id: str) -> None:
    event = validated(order_saga.starts_with, example_of(order_saga) | {"order_id": order_id})
    async with Embedded([inventory_service], settings) as embedded:
        await embedded.publish(starting_message(order_saga.name, order_id, event, now=SystemClock().now()))
        database = embedded.runtimes["inventory"].database

        async def is_reserved() -> bool:
            async with database.reading() as connection:
                return bool(await saga_log_queries.entries(connection, saga_id=order_id))

        await eventually(is_reserved)
        async with database.transaction() as session:
            await (await session.connection()).execute(delete(outbox.outbox))


def states(saga_process, order_id: str) -> dict[str, str]:
    timeline = json.loads(saga_process("trace", order_id, "-o", "json").stdout)
    return {each["step"]: each["to_state"] for each in timeline["entries"] if each["position"]} | {
        "": timeline["state"]
    }


def test_abort_compensates_an_order_and_logs_its_reason(saga_process, reserved):
    result = saga_process("abort", reserved, *WHY, **EMBEDDED)

    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "all services were asked to abort order-9; `saga trace order-9` shows the outcome\n"
    assert states(saga_process, reserved) == {
        "": "Failed",
        "reserve_inventory": "compensated",
        "process_payment": "fenced",
        "create_shipment": "fenced",
        "send_confirmation": "fenced",
        "send_cancellation_notice": "completed",
    }
    assert "the customer has called" in saga_process("trace", reserved).stdout


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        ("order-1", "error: saga order-1 has ended (Completed): there is nothing to abort\n"),
        ("order-3", "error: saga order-3 has ended (Failed): there is nothing to abort\n"),
        ("order-404", "error: no service knows a saga 'order-404'; `saga ls` lists those that they know\n"),
    ],
)
def test_ended_or_unknown_saga_is_not_aborted(saga, logs, order, fault):
    result = saga("abort", order, *WHY)

    assert (result.exit_code, result.stderr) == (1, fault)


def test_an_abort_without_a_broker_ends_with_3(saga_process, logs):
    result = saga_process("abort", "order-2", *WHY, SAGA_BROKER_URL="amqp://guest:guest@127.0.0.1:1/")

    assert result.returncode == 3
    assert len(result.stderr.splitlines()) == 1


def test_replay_repairs_a_lost_event(saga_process, reserved):
    replayed = saga_process("replay", reserved, *WHY, "-o", "json", **EMBEDDED)
    saga_process("trigger", "OrderCreated", "--wait", "30", **EMBEDDED)  # the services run within the command

    (row,) = json.loads(replayed.stdout)
    assert (row["service"], row["event_type"], row["outcome"]) == ("inventory", "InventoryReserved", "replayed")
    assert states(saga_process, reserved)[""] == "Completed"


def test_replay_works_in_databases_and_over_http(saga, logs, serve, monkeypatch):
    monkeypatch.setenv("SAGA_API_TOKEN", TOKEN)
    named = logs | {"payment": serve("payment", logs["payment"])}

    result = saga("replay", "order-3", *WHY, *service_options(named), "-o", "json")

    assert result.exit_code == 0
    assert {(row["step"], row["event_type"]) for row in json.loads(result.stdout)} == {
        ("reserve_inventory", "InventoryReleased"),
        ("process_payment", "PaymentRefunded"),
        ("create_shipment", "ShipmentFailed"),
        ("send_cancellation_notice", "OrderFailed"),
    }


def test_unknown_saga_is_not_replayed(saga, logs):
    result = saga("replay", "order-404", *WHY, "-o", "json")

    assert (result.exit_code, result.stdout.strip()) == (1, "[]")
    assert result.stderr == "error: no service knows a saga 'order-404'; `saga ls` lists those that they know\n"


def test_replay_without_a_service_names_it(saga, logs):
    result = saga("replay", "order-3", *WHY, *service_options(logs | {"shipping": "http://127.0.0.1:1"}))

    assert result.exit_code == 3
    assert "warning: shipping is unreachable, so nothing was replayed there" in result.stderr
    assert "PaymentRefunded" in result.stdout


def test_prune_deletes_old_ended_orders_only(saga, logs, serve, monkeypatch):
    monkeypatch.setenv("SAGA_API_TOKEN", TOKEN)
    named = service_options(logs | {"payment": serve("payment", logs["payment"])})

    result = saga("prune", "--older-than", "30d", *WHY, *named, "-o", "json")

    assert result.exit_code == 0
    assert [(row["service"], row["sagas"]) for row in json.loads(result.stdout)] == [
        ("inventory", 2), ("payment", 2), ("shipping", 2), ("notification", 2),
    ]  # fmt: skip
    assert [each["saga_id"] for each in json.loads(saga("ls", "-o", "json").stdout)] == ["order-2"]


@pytest.mark.parametrize("age", ["1h", "23h", "0", "99999d"])
def test_too_young_prune_is_wrong_use(saga, logs, age):
    result = saga("prune", "--older-than", age, *WHY)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "the log is the fence against events that come again" in result.stderr


def test_no_verb_creates_a_missing_database_file(saga, data_dir):
    for verb in (("replay", "order-1", *WHY), ("prune", "--older-than", "30d", *WHY), ("attention",)):
        saga(*verb, f"--service=payment=sqlite:///{data_dir}/payment.db")

    assert not data_dir.exists()


def test_nudge_sends_a_stalled_sagas_event_again(saga, reserved, data_dir):
    result = saga("nudge", reserved, *WHY, "-o", "json")

    (row,) = json.loads(result.stdout)
    waiting = asyncio.run(outbox_rows(f"sqlite:///{data_dir}/inventory.db"))
    assert (result.exit_code, row["event_type"], row["outcome"]) == (0, "InventoryReserved", "nudged")
    assert [(each.event_id, each.saga_id, each.destination) for each in waiting] == [(row["event_id"], reserved, None)]


async def outbox_rows(url: str) -> list[UnsentMessage]:
    database = Database(url)
    async with database.reading() as connection:
        rows = await outbox.listed(connection)
    await database.close()
    return rows


def test_nudge_over_http_needs_the_token(saga, reserved, data_dir, serve, monkeypatch):
    running = service_options({"inventory": serve("inventory", f"sqlite:///{data_dir}/inventory.db")})

    refused = saga("nudge", reserved, *WHY, *running)
    monkeypatch.setenv("SAGA_API_TOKEN", TOKEN)
    nudged = saga("nudge", reserved, *WHY, *running)

    assert (refused.exit_code, nudged.exit_code) == (2, 0)
    assert "show the token of inventory" in refused.stderr
    assert "nudged" in nudged.stdout
    audited = saga("audit", "inventory", *running)
    assert (audited.exit_code, "nudge" in audited.stdout) == (0, True)


def test_nudge_reports_unknown_sagas_and_unreachable_services(saga, reserved):
    unknown = saga("nudge", "order-404", *WHY)
    away = saga("nudge", reserved, *WHY, "--service=inventory=http://127.0.0.1:1")

    assert (unknown.exit_code, away.exit_code) == (1, 3)
    assert "error: no service knows a saga 'order-404'" in unknown.stderr
    assert "warning: inventory is unreachable, so nothing was nudged there" in away.stderr


@pytest.mark.parametrize("verb", ["nudge", "replay"])
def test_nudge_of_an_unknown_saga_prints_one_line(saga, reserved, verb):
    told = saga(verb, "order-404", *WHY)

    error = "error: no service knows a saga 'order-404'; `saga ls` lists those that they know\n"
    assert (told.exit_code, told.output) == (1, error)


def test_http_statistics_equal_the_databases(saga, reserved, data_dir, serve):
    url = serve("inventory", f"sqlite:///{data_dir}/inventory.db")

    (running,) = json.loads(saga("stats", f"--service=inventory={url}", "-o", "json").stdout)
    (read,) = json.loads(saga("stats", "-o", "json").stdout)

    assert running["by_state"] == read["by_state"] == {"Started": 1}
    assert running["ready"] == {"broker": True, "database": True, "relay": True}
