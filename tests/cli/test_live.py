"""`saga tail` and `saga watch` show what happens while they look, and end well when they are told to stop."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import queue
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.cli.conftest import command, service_options, write_log
from tests.orders import NOON, done, paid_order, reserved
from toolkit.declaration.events import SagaState
from toolkit.persistence import saga_log
from toolkit.persistence.database import Database

#: Seconds for a line that has to come; a busy machine takes its time.
PATIENCE = 30


class Running:
    """A verb under way, and the lines that it prints as it prints them."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: queue.Queue[str] = queue.Queue()
        for stream, lines in ((self.process.stdout, self._lines), (self.process.stderr, self._errors)):
            threading.Thread(target=lambda s=stream, q=lines: [q.put(line.rstrip("\n")) for line in s]).start()

    def line(self) -> str:
        """Return the next line."""
        return self._lines.get(timeout=PATIENCE)

    def error(self) -> str:
        """Return the next line on standard error."""
        return self._errors.get(timeout=PATIENCE)

    def stop(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def rest(self) -> list[str]:
        """Return what was printed and not looked at."""
        return list(self._lines.queue)


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    """Start a verb; it is killed at the end if it still runs."""
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait(PATIENCE)


async def append(url: str, *entries: saga_log.Entry) -> None:
    database = Database(url)
    async with database.transaction() as session:
        await saga_log.append(await session.connection(), [replace(each, emitted_body="{}") for each in entries])
    await database.close()


def shipped(saga_id: str) -> saga_log.Entry:
    return done(saga_id, "shipping", "create_shipment", SagaState.PENDING, "PaymentProcessed", "ShipmentCreated")


def test_tail_starts_with_newest_entries_and_follows(logs, run):
    tail = run("tail", "--limit", "1")
    first = [tail.line() for _ in logs]

    asyncio.run(append(logs["shipping"], shipped("order-2")))
    later = tail.line()
    code = tail.stop()

    assert sorted(line.split()[1] for line in first) == sorted(logs)
    assert later.split() == ["12:00:00.000", "shipping", "order-2", "→", "create_shipment", "completed",
                             "ShipmentCreated"]  # fmt: skip
    assert (code, tail.rest()) == (0, [])


def test_tail_prints_each_entry_once(logs, run):
    tail = run("tail", "--limit", "0", "--interval", "0.2", "-o", "jsonl")
    tail_is_there(logs, tail)

    for number in range(3):
        asyncio.run(append(logs["inventory"], reserved(f"order-1{number}"), reserved(f"order-2{number}")))
    told = [json.loads(tail.line())["saga_id"] for _ in range(6)]

    assert (tail.stop(), tail.rest()) == (0, [])
    assert sorted(told) == ["order-10", "order-11", "order-12", "order-20", "order-21", "order-22"]


def tail_is_there(logs, tail: Running) -> None:
    """Write entries until the first is told: from then on it reads all logs."""
    for number in range(PATIENCE * 2):
        asyncio.run(append(logs["notification"], replace(reserved(f"probe-{number}"), service="notification")))
        try:
            told = json.loads(tail._lines.get(timeout=0.5))["saga_id"]
        except queue.Empty:
            continue
        while told != f"probe-{number}":
            told = json.loads(tail.line())["saga_id"]
        return
    raise AssertionError("nothing was told")


def test_tail_of_one_saga_tells_of_no_other(logs, run):
    tail = run("tail", "--saga", "order-2")
    first = [tail.line() for _ in paid_order("order-2")]

    asyncio.run(append(logs["shipping"], shipped("order-7"), shipped("order-2")))
    later = tail.line()
    tail.stop()

    assert all(" order-2 " in line for line in (*first, later))
    assert tail.rest() == []


def test_tail_reads_running_services_as_well(logs, run, serve):
    urls = {name: serve(name, logs[name]) for name in ("payment", "shipping")}
    tail = run("tail", "--limit", "1", *service_options(urls))
    first = [tail.line() for _ in urls]

    asyncio.run(append(logs["shipping"], shipped("order-2")))

    assert len(first) == 2
    assert " order-2 " in tail.line()
    assert tail.stop() == 0


def test_tail_resumes_with_a_service_that_returns(data_dir, logs, run):
    asyncio.run(write_log(logs["payment"], []))
    away = data_dir / "warehouse.db"
    tail = run("tail", "--limit", "1", *service_options(logs | {"warehouse": f"sqlite:///{away}"}))
    for _ in logs:
        tail.line()
    complaint = tail.error()

    asyncio.run(write_log(f"sqlite:///{away}", []))
    back = tail.error()
    now = replace(reserved("order-8"), service="warehouse", emitted_body="{}", at=NOON.replace(year=2999))
    asyncio.run(append(f"sqlite:///{away}", now))

    assert complaint.startswith("warning: warehouse is unreachable, so its entries are missing here: ")
    assert back == "warehouse answers again"
    assert " order-8 " in tail.line()
    tail.stop()


def test_tail_refuses_the_endless_json_document(saga, logs):
    result = saga("tail", "-o", "json")

    assert result.exit_code == 2
    assert result.stderr == "error: an endless output is no JSON document: take -o jsonl, an object a line\n"


def test_watch_follows_changes_until_ctrl_c(logs):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    process = subprocess.Popen(
        command("watch", "--interval", "0.3"), stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm", "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"order-2" not in shown:
        shown += os.read(ours, 65_536)

    asyncio.run(append(logs["inventory"], reserved("order-77")))
    while b"order-77" not in shown:
        shown += os.read(ours, 65_536)
    process.send_signal(signal.SIGINT)

    assert process.wait(PATIENCE) == 0
    assert b"dead letters" in shown
    os.close(ours)


#: Presses Ctrl-C at the moment at which a module is looked for, and then does what the script `saga` does.
PRESSED = """
import os, signal, sys

awaited = sys.argv.pop(1)

class Finger:
    def find_spec(self, name, *_):
        if name == awaited:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finger())
from toolkit.cli import main
main()
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("rich.table", ("ls",)),
        ("toolkit.cli.interrupts", ("--version",)),
        ("toolkit.cli.commands.watch", ("--version",)),
        ("importlib.metadata", ("--version",)),
        ("asyncio", ("ls",)),
        ("sqlalchemy", ("ls",)),
        ("toolkit.client.service_client", ("ls",)),
        ("toolkit.console.server", ("console", "--port", "0")),
        ("services.demo", ("demo",)),
        ("services.payment.app", ("trigger", "OrderCreated")),
    ],
)
def test_ctrl_c_within_an_import_ends_silently(logs, module, arguments):
    pressed = (sys.executable, "-c", PRESSED, module, *arguments)

    result = subprocess.run(pressed, capture_output=True, text=True, timeout=60, check=False)

    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_console_obeys_signals_once_it_is_announced(logs, run, number):
    console = run("console", "--port", "0")
    told = console.error()
    console.process.send_signal(number)

    assert told.startswith("the console is at http://127.0.0.1:")
    assert console.process.wait(PATIENCE) == 0
