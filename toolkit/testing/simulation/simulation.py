"""Several services in one thread, one step at a time; the test decides what happens next."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog

from toolkit.configuration.settings import Settings
from toolkit.declaration.events import SagaEnded
from toolkit.declaration.service import Service
from toolkit.messaging.envelope import CONTROL_EVENTS, WireMessage
from toolkit.persistence.outbox import outbox
from toolkit.persistence.schema import as_utc
from toolkit.testing.clock import ManualClock
from toolkit.testing.simulation.inline_sqlite import inline_sqlite
from toolkit.testing.simulation.kept_database import KeptDatabase
from toolkit.testing.simulation.process import Process, remember_owner, simulated_failpoints
from toolkit.testing.simulation.virtual_time import ClockOff, VirtualLoop
from toolkit.testing.simulation.wire import Exit, Parcel, Wire, is_committed, is_recorded

#: The lowest level of the toolkit's logs that is recorded.
_WARNING = 30
#: Log events of errors that the toolkit survives; in a simulation nothing is ever down, so each is a bug.
_NEVER_LOGGED = (
    "the database is away; nothing is acknowledged meanwhile",
    "watchdog can't reach its database",
    "relay can't reach its database",
    "message could not be recorded; it is kept and tried again",
)
_NEXT_DUE = f"SELECT min(due_at) FROM {outbox.name}"  # noqa: S608 -- the name of a table, in the code
_UNSENT = f"SELECT 1 FROM {outbox.name} LIMIT 1"  # noqa: S608 -- the name of a table, in the code


class Complaints(list[str]):
    """Log events that must not occur; a structlog processor, the last one."""

    def __call__(self, _: Any, __: str, facts: Any) -> Any:
        """Keep a log event that must not occur, and print none."""
        if facts["event"] in _NEVER_LOGGED:
            self.append(f"{facts['event']}: {facts.get('error')}")
        raise structlog.DropEvent


class Simulation:
    """A world in which only the test's requests happen; `simulation()` creates one."""

    def __init__(
        self,
        services: Sequence[Service],
        settings: Settings,
        complaints: Complaints,
        clocks_off: Mapping[str, timedelta],
        databases: Mapping[str, KeptDatabase],
    ) -> None:
        self.clock = ManualClock()
        self.loop = VirtualLoop(self.clock)
        self.loop.set_task_factory(remember_owner)
        self.loop.set_exception_handler(lambda _, context: complaints.append(f"{context}"))
        self.wire = Wire(services, settings)
        self._complaints = complaints
        self.clocks = {each.name: ClockOff(self.clock, by=clocks_off.get(each.name, timedelta(0))) for each in services}
        self.processes = {each.name: self._process(each, settings, databases[each.name]) for each in services}
        self.files: dict[str, sqlite3.Connection] = {}
        for name, process in self.processes.items():
            process.start()
            # A separate connection, which sees only committed rows.
            self.files[name] = sqlite3.connect(settings.data_dir / f"{name}.db", isolation_level=None)
            self.files[name].row_factory = sqlite3.Row

    def deliver(self, *parcels: Parcel, acknowledge: bool = True) -> None:
        """Deliver waiting messages, one service's at once, and run until everything waits again."""
        for parcel in parcels:
            self.wire.waiting.remove(parcel)
            self.processes[parcel.service].deliver(parcel, acknowledge=acknowledge)
        self.settle()

    def deliver_all(self, *, most: int = 1000) -> None:
        """Deliver the waiting messages, oldest first, and those that they cause."""
        for _ in range(most):
            if not self.wire.waiting:
                return
            self.deliver(self.wire.waiting[0])
        raise AssertionError(f"no end of messages: {self.wire.waiting}")

    def crash(self, name: str) -> None:
        """Kill a service's process and restart it."""
        self.processes[name].kill()
        self.processes[name].start()
        self.settle()

    def crash_at(self, name: str, point: str, times: int = 1) -> None:
        """Have a service's process kill itself when it reaches this failpoint for so many times, and restart it."""
        self.processes[name].crash_at = point, times

    def settle(self) -> None:
        """Run until everything waits."""
        self.advance(timedelta(0))

    def advance(self, by: timedelta) -> None:
        """Let this time pass."""
        self.loop.advance(by)
        while dying := [name for name, process in self.processes.items() if process.is_dying]:
            for name in dying:
                self.processes[name].kill()
                self.processes[name].start()
            self.loop.settle()
        self._check()

    def wake_when_due(self) -> list[datetime]:
        """Let each relay look for its next due row in time, rather than at its next poll; return these times."""
        found = []
        for name, process in self.processes.items():
            ((text,),) = self.rows(name, _NEXT_DUE)
            if due := as_utc(text):
                process.runtime.relay.wake(due)
                found.append(due - self.clocks[name].by)
        return found

    def rows(self, name: str, query: str, *values: Any) -> list[sqlite3.Row]:
        """Return committed rows of a service."""
        return self.files[name].execute(query, values).fetchall()

    def is_quiet(self) -> bool:
        """Whether nothing is in flight: no waiting message, no outbox row, no busy process."""
        at_work = self.wire.waiting or any(process.is_at_work for process in self.processes.values())
        return not at_work and not any(self.rows(name, _UNSENT) for name in self.files)

    def close(self) -> None:
        """Kill all processes."""
        for process in self.processes.values():
            process.kill()
        for file in self.files.values():
            file.close()
        self.loop.close()

    def _process(self, service: Service, settings: Settings, database: KeptDatabase) -> Process:
        may_end = bool(service.orchestrators) or any(each.ends_saga for each in service.steps)

        def check(message: WireMessage) -> None:
            if message.type == SagaEnded.__name__ and not may_end:
                self._complaints.append(f"{service.name} sent {message.type}, and ends no sagas")
            if not is_committed(self.files[service.name], message):
                self._complaints.append(f"{service.name} sent {message.type}, which it has not committed")

        return Process(
            service,
            settings,
            wire=self.wire,
            way_out=Exit(self.wire, check),
            acknowledged=self._check_acknowledged,
            loop=self.loop,
            clock=self.clocks[service.name],
            database=database,
        )

    def _check_acknowledged(self, parcel: Parcel) -> None:
        is_control = parcel.message.type in {event.__name__ for event in CONTROL_EVENTS}
        if not is_control and not is_recorded(self.files[parcel.service], parcel.message):
            self._complaints.append(f"{parcel} was acknowledged, and nothing was committed")

    def _check(self) -> None:
        for name, process in self.processes.items():
            for message in process.way_out.owed.values():
                if not is_committed(self.files[name], message):
                    self._complaints.append(f"{name} has deleted {message.type}, which was not confirmed")
        if self._complaints:
            raise AssertionError("\n".join(self._complaints))


@contextmanager
def simulation(
    services: Sequence[Service],
    settings: Settings,
    *,
    template: Path | None = None,
    clocks_off: Mapping[str, timedelta] = MappingProxyType({}),
    databases: Mapping[str, KeptDatabase] = MappingProxyType({}),
) -> Iterator[Simulation]:
    """Run services in the settings' data directory, each on a copy of its file in the template, if there is one.

    - `clocks_off`: by how much a service's clock is ahead; a negative duration means behind.
    - `databases`: those of an earlier simulation in the same directory, by service.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if template:
        for service in services:
            shutil.copy(template / f"{service.name}.db", settings.data_dir)
    kept = {
        each.name: KeptDatabase(settings.database_for(each.name)) for each in services if each.name not in databases
    }
    complaints, logs = Complaints(), structlog.get_config()
    with ExitStack() as stack:
        stack.callback(structlog.configure, **logs)
        structlog.configure(processors=[complaints], wrapper_class=structlog.make_filtering_bound_logger(_WARNING))
        stack.enter_context(inline_sqlite())
        stack.enter_context(simulated_failpoints)
        world = Simulation(services, settings, complaints, clocks_off, {**kept, **databases})
        stack.callback(world.close)
        yield world
