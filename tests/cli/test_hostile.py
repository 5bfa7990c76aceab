"""Whatever is given to the command: one line that says what to do, and nothing that steers the reader's terminal."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
from dataclasses import replace

import pytest

from tests.cli.conftest import command, write_log
from tests.eventually import eventually
from tests.orders import paid_order
from toolkit.cli.exit_codes import UsageError
from toolkit.cli.service_discovery import discover


def test_the_version_is_shown(saga):
    result = saga("--version")

    assert result.exit_code == 0
    assert re.fullmatch(r"saga \d+\.\d+\.\d+\n", result.stdout)


@pytest.mark.parametrize(
    "arguments", [("trace", "\udcff"), ("log", "payment", "--saga", "\udcff"), ("trigger", "\udcff")]
)
def test_bytes_that_are_no_text_are_wrong_use(saga, logs, arguments):
    result = saga(*arguments)

    assert result.exit_code == 2
    assert r"'\udcff' is not UTF-8" in result.stderr


def test_setting_that_is_no_text_is_named(saga, monkeypatch):
    monkeypatch.setenv("SAGA_DATA_DIR", "\udcff")

    result = saga("ls")

    assert result.exit_code == 2
    assert "SAGA_DATA_DIR=" in result.stderr


@pytest.mark.parametrize("package", ["..", ".", "a b", ""])
@pytest.mark.parametrize("arguments", [("graph",), ("demo",), ("trigger", "OrderCreated"), ("run", "payment")])
def test_impossible_package_name_is_wrong_use(saga, monkeypatch, package, arguments):
    monkeypatch.setenv("SAGA_PACKAGE", package or "json")

    result = saga(*arguments)

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_package_without_services_is_reported():
    with pytest.raises(UsageError, match="the package 'json' holds no services"):
        discover("json")


def test_a_module_has_no_checks_of_its_own(saga, logs, monkeypatch):
    monkeypatch.setenv("SAGA_PACKAGE", "os")

    assert saga("verify").exit_code in (0, 1)


async def test_control_characters_are_shown_and_not_obeyed(saga_process, data_dir):
    entries = [replace(each, error="\x1b[2Jgone\u202e\n\x07") for each in paid_order("order-1")]
    await write_log(f"sqlite:///{data_dir}/payment.db", [each for each in entries if each.service == "payment"])

    told = saga_process("log", "payment").stdout, saga_process("trace", "order-1").stdout
    asked = saga_process("trace", "\x1b[2J").stderr

    assert all(r"\x1b[2Jgone\u202e\n\x07" in each for each in told)
    assert not any("\x1b" in each for each in (*told, asked))


def test_ascii_terminal_gets_an_answer(saga_process, logs):
    result = saga_process("trace", "order-1", PYTHONIOENCODING="ascii")

    assert (result.returncode, result.stderr) == (0, "")
    assert r"\u2713" in result.stdout


@pytest.mark.parametrize(
    "arguments", ["log payment", "log payment -o json", "trace order-1", "trace nobody -o json", "ls", "tail", "watch"]
)
def test_closed_pipe_ends_a_verb_silently_with_141(data_dir, logs, arguments):
    process = subprocess.Popen(
        command(*arguments.split()), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True
    )
    process.stdout.close()

    assert process.stderr.read() == ""
    assert process.wait(30) == 141


def test_tables_of_an_older_version_are_named(saga_process, data_dir):
    data_dir.mkdir()
    sqlite3.connect(data_dir / "payment.db").execute("CREATE TABLE saga_log (seq INTEGER PRIMARY KEY)")

    result = saga_process("trigger", "OrderCreated", SAGA_BROKER_URL="embedded")

    assert result.returncode == 2
    assert "no recorded version: run `saga db upgrade payment`" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    upgraded = saga_process("db", "upgrade", "payment")
    assert upgraded.returncode == 2
    assert "the table saga_log of" in upgraded.stderr


def test_ctrl_c_ends_with_130_and_no_traceback(data_dir):
    process = subprocess.Popen(
        command("trigger", "OrderCreated", "--set", "payment_method=card_slow", "--wait", "60"),
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=os.environ | {"SAGA_BROKER_URL": "embedded"}, text=True,
    )  # fmt: skip

    async def is_at_work() -> bool:
        return (data_dir / "payment.db").exists()

    asyncio.run(eventually(is_at_work, within=60, what="the payment's database"))
    process.send_signal(signal.SIGINT)

    assert process.wait(30) == 130
    assert "Traceback" not in process.stderr.read()
