"""The supervisor starts workers, replaces the dead, and stops all; the workers here are small scripts."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from toolkit.supervision import supervisor
from toolkit.supervision.supervisor import WorkersExit, run_workers

#: A worker that notes its start in the current directory, reports that it is ready, and then acts as a test says.
SCRIPT = """
import asyncio, json, os, signal, sys, time
from pathlib import Path
from toolkit.supervision.worker import Worker

worker = Worker.of_this_process()
with Path("started").open("a") as file:
    file.write(f"{worker.number} {os.getpid()} {time.monotonic()}\\n")


def ready():
    worker.reports.write(worker.number, {"broker": True, "database": True, "relay": True})


def starts():
    return [line for line in Path("started").read_text().splitlines() if line.startswith(f"{worker.number} ")]
"""
SERVE = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ready()
while True:
    signal.pause()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for the notes of the scripts; they import the toolkit from here all the same."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", 0.05)
    return tmp_path


def run(
    code: str,
    count: int,
    *,
    until: Callable[[], bool] = lambda: False,
    signals: int = 1,
    python: str = sys.executable,
) -> WorkersExit:
    """Run a script in workers; send so many SIGTERMs once the condition holds."""

    def stop() -> None:
        end = time.monotonic() + 30
        while not (until() or is_over.is_set()) and time.monotonic() < end:
            time.sleep(0.02)
        for _ in range(signals):
            if not is_over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)

    is_over = threading.Event()
    thread = threading.Thread(target=stop)
    thread.start()
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        return run_workers([python, "-c", SCRIPT + textwrap.dedent(code)], count, [])
    finally:
        is_over.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)


def starts() -> list[tuple[int, int, float]]:
    """Return the starts so far: the worker, its process, and when."""
    lines = Path("started").read_text().splitlines() if Path("started").exists() else []
    return [(int(number), int(pid), float(at)) for number, pid, at in (line.split() for line in lines)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_signal_stops_all_workers():
    outcome = run(SERVE, 3, until=lambda: len(starts()) == 3)

    assert outcome == WorkersExit(0)
    assert sorted(number for number, *_ in starts()) == [1, 2, 3]
    assert not any(is_alive(pid) for _, pid, _ in starts())


def test_a_second_signal_kills_stubborn_workers():
    stubborn = "signal.signal(signal.SIGTERM, lambda *_: None); ready()\nwhile True: signal.pause()"

    outcome = run(stubborn, 2, until=lambda: len(starts()) == 2, signals=2)

    assert outcome == WorkersExit(128 + signal.SIGTERM)
    assert not any(is_alive(pid) for _, pid, _ in starts())


def test_stubborn_workers_are_killed_in_time(monkeypatch):
    monkeypatch.setattr(supervisor, "_GRACE", 0.5)
    stubborn = "signal.signal(signal.SIGTERM, lambda *_: None); ready()\nwhile True: signal.pause()"

    outcome = run(stubborn, 1, until=lambda: len(starts()) == 1)

    assert outcome == WorkersExit(1)


def test_an_error_at_the_start_ends_all():
    outcome = run("worker.report_error('SAGA_X is not allowed'); sys.exit(2)", 3)

    assert outcome == WorkersExit(2, "SAGA_X is not allowed")
    assert len(starts()) == 1, "the others wait until the first one is loaded"


def test_an_error_of_a_later_worker_ends_all():
    code = "worker.reports.write(worker.number, {'broker': False})\nif worker.number == 2: sys.exit(1)\n" + SERVE[1:]

    outcome = run(code.replace("ready()\n", ""), 2)

    assert outcome == WorkersExit(1)
    assert not any(is_alive(pid) for _, pid, _ in starts())


def test_dead_workers_are_replaced_with_growing_pauses():
    code = "ready()\nif worker.number == 2 and len(starts()) < 4: os.kill(os.getpid(), signal.SIGKILL)\n" + SERVE

    with capture_logs() as lines:
        outcome = run(code, 2, until=lambda: len(starts()) == 5)

    ended = [line for line in lines if line["event"] == "worker ended; another takes its place"]
    assert outcome == WorkersExit(0)
    assert [(line["worker"], line["reason"], line["restarts"], line["pause"]) for line in ended] == [
        (2, "signal SIGKILL", 1, "0.05 s"),
        (2, "signal SIGKILL", 2, "0.1 s"),
        (2, "signal SIGKILL", 3, "0.2 s"),
    ]
    assert [line["log_level"] for line in ended] == ["warning", "warning", "error"]
    second = [at for number, _, at in starts() if number == 2]
    assert second[1] - second[0] > 0.05
    assert second[3] - second[2] > 0.2


def test_a_failure_after_the_start_is_logged_with_its_error():
    code = "ready()\ntime.sleep(1)\nif len(starts()) == 1: worker.report_error('no room'); sys.exit(2)\n" + SERVE

    with capture_logs() as lines:
        outcome = run(code, 1, until=lambda: len(starts()) == 2)

    assert outcome == WorkersExit(0)
    assert [line["reason"] for line in lines if "worker ended" in line["event"]] == ["no room"]


def test_a_start_that_fails_is_tried_again(place):
    python = place / "python"
    threading.Timer(0.5, lambda: python.symlink_to(sys.executable)).start()

    with capture_logs() as lines:
        outcome = run(SERVE, 1, until=lambda: len(starts()) == 1, python=str(python))

    assert outcome == WorkersExit(0)
    assert {line["reason"] for line in lines} == {"it could not be started: No such file or directory"}


def test_a_worker_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(supervisor, "_SILENCE", 1.0)
    code = """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ready()
    while True:
        time.sleep(0.1)
        if len(starts()) > 1:
            ready()
    """

    with capture_logs() as lines:
        outcome = run(code, 1, until=lambda: len(starts()) == 2)

    assert outcome == WorkersExit(0)
    assert [line["event"] for line in lines] == [
        "worker does not respond and is killed",
        "worker ended; another takes its place",
    ]
