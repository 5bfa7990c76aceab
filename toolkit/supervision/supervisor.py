"""The parent process of a service's workers: it starts them, replaces those that die, and stops all of them.

It opens the listening sockets, which the workers share, and does no work of the service itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from select import select
from typing import Any

import structlog

from toolkit.configuration.settings import Settings
from toolkit.observability.logs import configure_logs
from toolkit.observability.worker_reports import WorkerReports
from toolkit.supervision.worker import VARIABLE, Worker
from toolkit.web.listeners import listen

log = structlog.get_logger("toolkit")

#: Seconds between two looks at the workers; a death or a signal is noticed at once.
_TICK = 0.25
#: Seconds before a dead worker is replaced; the pause doubles with each death in a row, up to the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
#: A worker that lived for so many seconds begins the count of deaths again.
_STABLE = 60.0
#: From so many deaths in a row a person has to act.
_MANY_DEATHS = 3
#: Seconds without a report after which a worker hangs and is killed. The broker has given it up by then.
_SILENCE = 30.0
#: Seconds for all workers to stop; each of them exits after eight.
_GRACE = 9.0


@dataclass(frozen=True, slots=True)
class WorkersExit:
    """How a service with workers ended: its exit code, and the error that a worker ended with at the start."""

    code: int
    error: str | None = None


@dataclass(slots=True)
class _Slot:
    """The place of one worker, and the process that fills it.

    - `due`: when the next process is started, if there is none.
    - `deaths`: how many processes have died here in a row; `restarts`: how many were replaced in all.
    """

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    deaths: int = 0
    restarts: int = 0


@dataclass(slots=True)
class _Signals:
    """The signals that this process has received; a pipe wakes it."""

    pipe: int
    received: list[int] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        """Wait for a signal, that of a child's death included, for so many seconds at most."""
        if select([self.pipe], [], [], seconds)[0]:
            os.read(self.pipe, 4096)


def supervise(reference: str, settings: Settings, count: int) -> WorkersExit:
    """Run a service in so many workers until SIGTERM or Ctrl-C; return how it ended.

    Raises:
        SettingsError: a port or an address is not available.
    """
    configure_logs(settings)
    structlog.contextvars.bind_contextvars(service=reference)
    with ExitStack() as stack:
        listeners = [stack.enter_context(each) for each in listen(settings)]
        log.info("service runs in workers", workers=count)
        if settings.database_for("").startswith("sqlite:"):
            cure = "name a database of PostgreSQL in SAGA_DATABASE_URL"
            log.warning("the workers share an SQLite file, which only one of them writes at a time", cure=cure)
        command = [sys.executable, "-m", "toolkit.cli", "run", reference]
        return run_workers(command, count, listeners)


def run_workers(command: Sequence[str], count: int, listeners: Sequence[socket.socket]) -> WorkersExit:
    """Run this command in so many workers, which share the sockets, until SIGTERM or Ctrl-C."""
    with ExitStack() as stack:
        signals = stack.enter_context(_signals())
        lifeline, kept = os.pipe()
        stack.callback(os.close, lifeline)
        stack.callback(os.close, kept)
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="saga-", ignore_cleanup_errors=True))
        given: dict[str, Any] = {
            "count": count,
            "directory": directory,
            "listeners": tuple(each.fileno() for each in listeners),
            "lifeline": lifeline,
        }
        workers = [Worker(number=number, **given) for number in range(1, count + 1)]
        supervisor = Supervisor(command, workers, signals)
        outcome = supervisor.run()
        for each in listeners:  # new connections are refused while the workers finish
            each.close()
        return supervisor.stop(outcome)


class Supervisor:
    """Keeps a process in each worker's slot."""

    def __init__(self, command: Sequence[str], workers: list[Worker], signals: _Signals) -> None:
        self._command = command
        self._workers = {worker.number: worker for worker in workers}
        self._slots = [_Slot(number) for number in self._workers]
        self._reports: WorkerReports = workers[0].reports
        self._signals = signals
        self._was_ready = self._has_reported = False
        self._looked = time.monotonic()
        self._patient_until = 0.0

    def run(self) -> WorkersExit | None:
        """Run until a signal, or until a worker ends with an error before any was ready, which is returned."""
        while not self._signals.received:
            for slot in self._slots:
                if outcome := self._bury(slot):
                    return outcome
                self._start(slot)
            self._look()
            self._signals.wait(_TICK)
        return None

    def stop(self, outcome: WorkersExit | None) -> WorkersExit:
        """Stop all workers: they finish their work in hand, unless a second signal comes or their time is over."""
        processes = {slot.number: slot.process for slot in self._slots if slot.process}
        for each in processes.values():
            each.terminate()
        until, before = time.monotonic() + _GRACE, len(self._signals.received)
        while any(each.poll() is None for each in processes.values()):
            is_hurried = len(self._signals.received) > before
            if is_hurried or time.monotonic() > until:
                log.error("workers are killed before they have finished; unacknowledged messages will be redelivered")
                for each in processes.values():
                    each.kill()
                    each.wait()
                return outcome or WorkersExit(128 + self._signals.received[-1] if is_hurried else 1)
            self._signals.wait(_TICK)
        # One that was not yet ready for the signal has died of it, with nothing in hand.
        are_fine = all(each.returncode in (0, -signal.SIGTERM) for each in processes.values())
        return outcome or WorkersExit(0 if are_fine else 1)

    def _start(self, slot: _Slot) -> None:
        """Start a process in an empty slot that is due; the first one is loaded before the others start.

        An error in the service's code or its settings is then that of one process.
        """
        now = time.monotonic()
        if slot.process or slot.due > now or not (self._has_reported or slot.number == 1):
            return
        worker = self._workers[slot.number]
        slot.started = now
        try:
            slot.process = subprocess.Popen(  # noqa: S603 -- this program itself, with the arguments that it was given
                self._command,
                env=os.environ | {VARIABLE: worker.as_variable()},
                pass_fds=(*worker.listeners, worker.lifeline),
                stdin=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C in a terminal reaches the supervisor alone
            )
        except OSError as error:  # no memory, or no room for a process: the other workers go on
            self._plan(slot, f"it could not be started: {error.strerror}")

    def _bury(self, slot: _Slot) -> WorkersExit | None:
        """Plan the next start for a slot whose process has ended; return the outcome if it ends the service."""
        if slot.process is None or (code := slot.process.poll()) is None:
            return None
        report = self._reports.read(slot.number)
        error = report.error if report else None
        if code > 0 and not self._was_ready:
            slot.process = None
            return WorkersExit(code, error)
        self._plan(slot, error or _reason(code))
        return None

    def _plan(self, slot: _Slot, reason: str) -> None:
        """Empty a slot, and plan its next start."""
        now = time.monotonic()
        slot.deaths = 1 if now - slot.started > _STABLE else slot.deaths + 1
        slot.restarts += 1
        pause = min(_FIRST_PAUSE * 2 ** (slot.deaths - 1), _LONGEST_PAUSE)
        write = log.error if slot.deaths >= _MANY_DEATHS else log.warning
        write(
            "worker ended; another takes its place",
            worker=slot.number,
            pid=slot.process.pid if slot.process else None,
            reason=reason,
            restarts=slot.restarts,
            pause=f"{pause:g} s",
        )
        self._reports.remove(slot.number)
        slot.process, slot.due = None, now + pause

    def _look(self) -> None:
        """Read the reports: note the first one and the first readiness, and kill a worker that hangs."""
        now = time.monotonic()
        if now - self._looked > _SILENCE / 2:  # this process was suspended, and so were the workers
            self._patient_until = now + _SILENCE
        self._looked = now
        for slot in self._slots:
            report = self._reports.read(slot.number) if slot.process else None
            if not (slot.process and report):
                continue
            self._has_reported = True
            self._was_ready = self._was_ready or (bool(report.parts) and all(report.parts.values()))
            if report.age > _SILENCE and not report.error and now > self._patient_until:
                log.error("worker does not respond and is killed", worker=slot.number, pid=slot.process.pid)
                slot.process.kill()
                slot.process.wait()


def _reason(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


@contextmanager
def _signals() -> Iterator[_Signals]:
    """Collect SIGTERM and SIGINT, and be woken by the death of a child."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signals = _Signals(reading)

    def note(number: int, _: Any) -> None:
        signals.received.append(number)

    before = {each: signal.signal(each, note) for each in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(woken)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(reading)
        os.close(writing)
