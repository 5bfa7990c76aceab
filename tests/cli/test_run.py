"""`saga run` runs one service until SIGTERM; the other verbs read it over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import SERVICES, command
from tests.eventually import eventually


@contextmanager
def running(name: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service, its log in a file; it receives SIGTERM at the end."""
    with log.open("wb") as stderr:
        process = subprocess.Popen(command("run", name), env=os.environ | environment, stderr=stderr)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


async def ready(log: Path) -> str:
    """Return where the service answers, once it is ready."""

    async def look() -> str | None:
        url = address(log)
        if url is None:
            return None
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"{url}/readyz")
        return url if response.status_code == 200 else None

    return await eventually(look, within=60, what=f"the service of {log.name}")


def address(log: Path) -> str | None:
    """Return the address where a service listens, once its log has it."""
    port = re.search(r'"port": (\d+)', log.read_text())
    return f"http://127.0.0.1:{port[1]}" if port else None


async def test_four_services_carry_orders_to_their_ends(saga_process, environment, tmp_path, monkeypatch):
    with ExitStack() as services:
        processes = [services.enter_context(running(name, environment, tmp_path / f"{name}.log")) for name in SERVICES]
        urls = {name: await ready(tmp_path / f"{name}.log") for name in SERVICES}
        monkeypatch.setenv("SAGA_SERVICES", ",".join(f"{name}={url}" for name, url in urls.items()))

        sent = saga_process("trigger", "OrderCreated", "--count", "3", "--wait", "20", **environment)
        traced = saga_process("trace", sent.stdout.split()[0], "-o", "json")

    assert sent.returncode == 0, sent.stderr
    assert json.loads(traced.stdout)["state"] == "Completed"
    assert [process.returncode for process in processes] == [0, 0, 0, 0]


def test_run_of_unknown_service_names_the_others(saga):
    result = saga("run", "payments")

    assert result.exit_code == 2
    assert result.stderr == (
        "error: there is no service 'payments'; there are: inventory, notification, payment, shipping\n"
    )


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("services.payment.app:service", "is no Service; write module:attribute"),
        ("services.billing.app:app", "there is no module 'services.billing.app'"),
        ("nosuch:", "there is no module 'nosuch'"),
        (":", "'' can't be the name of a module"),
        (":app", "'' can't be the name of a module"),
        ("..:app", "'..' can't be the name of a module"),
    ],
)
def test_a_reference_that_leads_nowhere_is_wrong_use(saga, reference, fault):
    result = saga("run", reference)

    assert result.exit_code == 2
    assert fault in result.stderr


def test_run_with_bad_setting_names_the_variable(saga, monkeypatch):
    monkeypatch.setenv("SAGA_HTTP_PORT", "many")

    result = saga("run", "payment")

    assert result.exit_code == 2
    assert result.stderr.startswith("error: SAGA_HTTP_PORT='many' is not allowed")


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("SAGA_BROKER_URL", "embedded", "error: SAGA_BROKER_URL=embedded is one process for all services"),
        ("SAGA_STEP_TIMEOUTS", '{"procces_payment": 5}', "error: SAGA_STEP_TIMEOUTS names procces_payment, and no"),
        ("SAGA_LOGINS", '{"paymnet": ["payment"]}', "error: SAGA_LOGINS names paymnet, and no event has such an owner"),
        ("SAGA_HTTP_HOST", "no.such.host.invalid", "error: SAGA_HTTP_HOST='no.such.host.invalid' can't be listened on"),
        (
            "SAGA_HTTP_HOST",
            "0.0.0.0",
            "error: SAGA_HTTP_HOST='0.0.0.0' is reached from other machines, and SAGA_API_TO",
        ),
        (
            "SAGA_HTTP_HOST",
            "::",
            "error: SAGA_HTTP_HOST='::' is reached from other machines, and SAGA_API_TOKEN is not",
        ),
        ("SAGA_DATABASE_URL", f"sqlite:///{__file__}/payment.db", "error: can't create a database in "),
    ],
)
def test_unrunnable_reference_is_wrong_use(saga, monkeypatch, variable, value, fault):
    monkeypatch.setenv(variable, value)

    result = saga("run", "payment")

    assert result.exit_code == 2
    assert result.stderr.startswith(fault)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("reminders", "fault"),
    [
        ('{"decide_purchas": 5}', "SAGA_STEP_REMINDERS names decide_purchas, and no service has such a step that"),
        ('{"reserve_budget": 5}', "SAGA_STEP_REMINDERS names reserve_budget, and no service has such a step that"),
        ('{"decide_purchase": 60}', "SAGA_STEP_REMINDERS=0:01:00 for decide_purchase is not allowed: give less than"),
    ],
)
def test_a_reminder_that_never_comes_is_refused(saga, monkeypatch, reminders, fault):
    monkeypatch.setenv("SAGA_PACKAGE", "examples.approval")
    monkeypatch.setenv("SAGA_STEP_TIMEOUTS", '{"decide_purchase": 60}')
    monkeypatch.setenv("SAGA_STEP_REMINDERS", reminders)

    result = saga("run", "approvals")

    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {fault}")
    assert len(result.stderr.splitlines()) == 1


def test_a_taken_port_is_the_ports_fault(saga, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("SAGA_HTTP_PORT", str(port))

        result = saga("run", "payment")

    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: SAGA_HTTP_PORT={port} can't be listened on")


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("SAGA_DATABASE_URL", "sqlite:///{file}", "can't be used: DatabaseError: file is not a database"),
        ("SAGA_EXCHANGE", "amq.reserved", "the broker refuses us: ChannelAccessRefused: ACCESS_REFUSED"),
        ("PAYMENT_GATEWAY_SLOWNESS", "soon", "PAYMENT_GATEWAY_SLOWNESS='soon' is not allowed"),
        ("PAYMENT_GATEWAY_URL", "mysql://pay", "PAYMENT_GATEWAY_URL='mysql://pay' is not allowed"),
    ],
)
def test_impossible_start_ends_with_2_and_its_reason(saga_process, environment, tmp_path, variable, value, fault):
    (tmp_path / "notes.db").write_text("no database at all, but long enough to be looked at" * 50)

    result = saga_process("run", "payment", **environment | {variable: value.format(file=tmp_path / "notes.db")})

    assert result.returncode == 2
    assert fault in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_impossible_start_of_workers_is_one_error(saga_process, environment, tmp_path):
    (tmp_path / "notes.db").write_text("no database at all, but long enough to be looked at" * 50)
    own = {"SAGA_DATABASE_URL": f"sqlite:///{tmp_path / 'notes.db'}", "SAGA_WORKERS": "3"}

    result = saga_process("run", "payment", **environment | own)

    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: the database ")
    assert result.stderr.count("can't be used: DatabaseError: file is not a database") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("count", "fault"),
    [("0", "error: SAGA_WORKERS='0' is not allowed"), ("many", "error: SAGA_WORKERS='many' is not allowed")],
)
def test_a_bad_number_of_workers_is_wrong_use(saga, monkeypatch, count, fault):
    monkeypatch.setenv("SAGA_WORKERS", count)

    by_setting, by_option = saga("run", "payment"), saga("run", "payment", "--workers", count)

    assert by_setting.exit_code == by_option.exit_code == 2
    assert by_setting.stderr.startswith(fault)


async def test_service_outlasts_a_refusing_broker_or_database(environment, postgresql, tmp_path):
    wrong = {
        "login": {"SAGA_BROKER_URL": environment["SAGA_BROKER_URL"].replace("guest:guest@", "guest:wrong@")},
        "vhost": {"SAGA_BROKER_URL": environment["SAGA_BROKER_URL"].rstrip("/") + "/no-such-host"},
        "database": {"SAGA_DATABASE_URL": postgresql.url.rpartition("/")[0] + "/no_such_database"},
    }
    refused = {
        "login": "the broker refuses us",
        "vhost": "the broker refuses us",
        "database": "the database refuses us",
    }

    for name, setting in wrong.items():
        log = tmp_path / f"{name}.log"
        with running("payment", environment | setting, log) as process:

            async def told(log=log, line=refused[name]) -> bool:
                return log.read_text().count(line) > 1

            await eventually(told, what=f"the refusal of the {name}")

            assert process.poll() is None
        assert '"level": "error"' in log.read_text()
        assert '"cure": "mend the login' in log.read_text()
