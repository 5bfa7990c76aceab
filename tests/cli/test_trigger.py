"""`saga trigger` starts sagas, here with all services embedded in its process, and says what became of them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from contextlib import asynccontextmanager

import aio_pika
import pytest

from tests.cli.conftest import command, service_options
from tests.eventually import eventually

EMBEDDED = {"SAGA_BROKER_URL": "embedded"}


def test_completed_order_prints_its_id_alone(saga_process):
    result = saga_process("trigger", "OrderCreated", "--set", "order_id=order-7", "--wait", "20", **EMBEDDED)

    assert (result.returncode, result.stdout, result.stderr) == (0, "order-7\n", "order-7 completed\n")


def test_refused_order_ends_with_1_and_reason(saga_process):
    result = saga_process(
        "trigger", "OrderCreated", "--set", "order_id=order-7", "--set", "shipping_address.country=AQ",
        "--wait", "20", "-o", "jsonl", **EMBEDDED,
    )  # fmt: skip

    assert result.returncode == 1
    assert json.loads(result.stdout) == {"saga_id": "order-7", "saga_type": "order", "state": "Failed"}
    assert result.stderr == "order-7 failed: we do not ship to AQ\n"


def test_several_orders_have_fresh_ids_and_all_complete(saga_process):
    result = saga_process("trigger", "OrderCreated", "--count", "5", "--wait", "30", "-o", "json", **EMBEDDED)

    rows = json.loads(result.stdout)
    assert result.returncode == 0
    assert len({row["saga_id"] for row in rows}) == 5
    assert {row["state"] for row in rows} == {"Completed"}


def test_the_same_order_sent_twice_is_one_saga(saga_process):
    arguments = ("trigger", "OrderCreated", "--set", "order_id=order-7", "--wait", "20")

    results = [saga_process(*arguments, **EMBEDDED) for _ in range(2)]

    log = saga_process("log", "inventory", "--saga", "order-7", "-o", "json", **EMBEDDED)
    assert [result.returncode for result in results] == [0, 0]
    assert [each["to_state"] for each in json.loads(log.stdout)] == ["completed", "confirmed"]


def test_embedded_saga_ends_without_waiting(saga_process):
    saga_process("trigger", "OrderCreated", "--set", "order_id=order-7", **EMBEDDED)

    listed = json.loads(saga_process("ls", "-o", "json").stdout)

    assert [(each["saga_id"], each["state"]) for each in listed] == [("order-7", "Completed")]


def test_saga_not_done_in_time_ends_with_3(saga_process):
    result = saga_process(
        "trigger", "OrderCreated", "--set", "order_id=order-7", "--set", "payment_method=card_down",
        "--wait", "0.2", **EMBEDDED,
    )  # fmt: skip

    assert result.returncode == 3
    assert result.stdout == "order-7\n"
    assert re.match(r"order-7 has not ended in time, it is (Started|Pending)\n", result.stderr)


def test_order_without_a_consumer_ends_with_3(saga_process, rabbitmq, prefix):
    result = saga_process("trigger", "OrderCreated", "--count", "9", SAGA_BROKER_URL=rabbitmq.url, SAGA_EXCHANGE=prefix)

    assert result.returncode == 3
    assert result.stderr == (
        "error: no queue is bound to order.OrderCreated: "
        "start the service that consumes it, by `saga run`, and send again\n"
    )


def test_a_broker_that_is_away_ends_with_3(saga_process):
    result = saga_process("trigger", "OrderCreated", SAGA_BROKER_URL="amqp://guest:guest@127.0.0.1:1/")

    assert result.returncode == 3
    assert result.stderr.startswith("error: the broker does not answer at SAGA_BROKER_URL")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("OrderPlaced",), "no saga starts with 'OrderPlaced'; those that start one: OrderCreated"),
        (("InventoryReserved",), "no saga starts with 'InventoryReserved'"),
        (("OrderCreated", "--data", "{"), "--data is not JSON"),
        (("OrderCreated", "--data", "{}"), "this is no OrderCreated: "),
        (("OrderCreated", "--set", "items.0.sku="), "this is no OrderCreated: items.0.sku"),
        (("OrderCreated", "--count", "2", "--set", "order_id=order-7"), "2 sagas can't share the order_id"),
    ],
)
def test_unsendable_order_is_wrong_use(saga, arguments, fault):
    result = saga("trigger", *arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert fault in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SAGA_BROKER_URL", "http://rabbit"),
        ("SAGA_BROKER_URL", "amqp://h:abc/"),
        ("SAGA_STEP_TIMEOUTS", "{"),
        ("SAGA_DATA_DIR", __file__),
    ],
)
def test_a_bad_setting_is_wrong_use(saga, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)

    result = saga("trigger", "OrderCreated")

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("seconds", ["inf", "1e300", "nan", "-1"])
def test_a_wait_that_is_none_is_wrong_use(saga, seconds):
    result = saga("trigger", "OrderCreated", "--wait", seconds)

    assert result.exit_code == 2
    assert "Invalid value for '--wait'" in result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("PAYMENT_GATEWAY_SLOWNESS", "soon", 2),
        ("PAYMENT_GATEWAY_URL", "postgresql://h:abc/pay", 2),
        ("PAYMENT_GATEWAY_URL", "postgresql://postgres@127.0.0.1:1/pay", 3),
        ("SAGA_STEP_TIMEOUTS", '{"no_such_step": 5}', 2),
        ("SAGA_DATA_DIR", "/proc/nowhere", 2),
    ],
)
def test_failed_embedded_start_is_one_line(saga_process, variable, value, code):
    result = saga_process("trigger", "OrderCreated", **EMBEDDED, **{variable: value})

    assert result.returncode == code
    assert len(result.stderr.splitlines()) == 1


def test_missing_virtual_host_ends_with_3(saga_process, rabbitmq):
    result = saga_process("trigger", "OrderCreated", SAGA_BROKER_URL=rabbitmq.url.rstrip("/") + "/no-such-host")

    assert result.returncode == 3
    assert result.stderr.startswith("error: the broker refuses us at SAGA_BROKER_URL")
    assert len(result.stderr.splitlines()) == 1


def under_way(*arguments, **environment):
    """Start a verb in a process of its own."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*arguments), env=os.environ | environment, **streams)


@asynccontextmanager
async def listened_to(url, exchange):
    """Have somebody listen to orders; yield how many came."""
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        to = await channel.declare_exchange(exchange, aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(exchange, exclusive=True)
        await queue.bind(to, routing_key="order.#")

        async def came():
            return (await channel.declare_queue(exchange, passive=True)).declaration_result.message_count

        yield came
        await to.delete(if_unused=False)


@pytest.mark.parametrize(
    ("output", "number", "code"),
    [
        ("table", signal.SIGINT, 130),
        ("json", signal.SIGINT, 130),
        ("jsonl", signal.SIGINT, 130),
        ("json", signal.SIGTERM, 143),
    ],
)
async def test_signal_while_sending_prints_sent_orders(data_dir, rabbitmq, prefix, output, number, code):
    async with listened_to(rabbitmq.url, prefix) as came:
        broker = {"SAGA_BROKER_URL": rabbitmq.url, "SAGA_EXCHANGE": prefix}
        process = under_way("trigger", "OrderCreated", "--count", "20000", "-o", output, **broker)
        await eventually(came, what="the first orders there", within=60)
        process.send_signal(number)
        out, err = await asyncio.to_thread(process.communicate, timeout=60)
        there = await came()  # the broker has confirmed each, so each counts

    told = json.loads(out) if output == "json" else out.splitlines()
    assert process.returncode == code
    assert err == f"{len(told)} of 20000 sent\n"
    assert len(told) == there  # what was under way was waited for


def test_ctrl_c_while_waiting_leaves_the_ids(logs, rabbitmq, prefix):
    async def stopped():
        async with listened_to(rabbitmq.url, prefix):
            broker = {"SAGA_BROKER_URL": rabbitmq.url, "SAGA_EXCHANGE": prefix}
            process = under_way("trigger", "OrderCreated", "--wait", "60", *service_options(logs), **broker)
            known = await asyncio.to_thread(process.stdout.readline)
            process.send_signal(signal.SIGINT)
            return known, *await asyncio.to_thread(process.communicate, timeout=60), process.returncode

    known, out, err, code = asyncio.run(stopped())

    assert re.fullmatch(r"[0-9a-f-]{36}\n", known)
    assert (out, err, code) == ("", "1 of 1 sent, 0 of them known to have ended\n", 130)


def test_service_without_its_tables_names_the_cure(saga_process, tmp_path):
    (tmp_path / "theatre" / "venue").mkdir(parents=True)
    for package in ("theatre", "theatre/venue"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "theatre" / "venue" / "app.py").write_text(
        "from services.inventory.app import app as stocked\n"
        "from toolkit import Service\n\n"
        'app = Service(name="inventory", participants=stocked.participants, seed=stocked.seed)\n'
    )

    result = saga_process(
        "trigger", "OrderCreated", "--wait", "6",
        SAGA_PACKAGE="theatre", PYTHONPATH=os.pathsep.join((str(tmp_path), os.getcwd())), **EMBEDDED,
    )  # fmt: skip

    assert result.returncode == 2
    assert result.stderr.startswith("error: Service 'inventory': its seed ")
    assert "which does not exist. Pass Service(tables=…)" in result.stderr
