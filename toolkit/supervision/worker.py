"""One of a service's workers, in its own process: what the supervisor handed to it, and its reports."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from toolkit.observability.worker_reports import WorkerReports

if TYPE_CHECKING:
    from toolkit.api.context import Readiness

#: The variable by which the supervisor starts a worker; no operator sets it, so it lacks the prefix of the settings.
VARIABLE = "_SAGA_WORKER"
#: Seconds between two reports.
_PAUSE = 1
#: Seconds for a worker's own readiness: a silent database must not look like a worker that hangs.
_PATIENCE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Worker `number` of `count`.

    - `directory`: the files that all workers share.
    - `listeners`: the descriptors of the sockets that all workers accept connections from.
    - `lifeline`: the descriptor of a pipe that closes when the supervisor dies.
    """

    number: int
    count: int
    directory: str
    listeners: tuple[int, ...]
    lifeline: int

    @classmethod
    def of_this_process(cls) -> Self | None:
        """Return the worker that this process is, if the supervisor has started it.

        Processes that a step starts inherit neither the variable nor the descriptors.
        """
        if not (text := os.environ.pop(VARIABLE, "")):
            return None
        given = json.loads(text)
        worker = cls(**given | {"listeners": tuple(given["listeners"])})
        for each in (*worker.listeners, worker.lifeline):
            os.set_inheritable(each, False)
        return worker

    def as_variable(self) -> str:
        """Return the variable's value for this worker."""
        return json.dumps(asdict(self))

    @property
    def reports(self) -> WorkerReports:
        """The reports of all workers."""
        return WorkerReports(Path(self.directory), self.count)

    def share_metrics(self) -> None:
        """Let the other workers add up this process's counters; before any module with a counter is imported."""
        from toolkit.observability.shared_metrics import share

        share(Path(self.directory), self.number, self.reports)

    def open_listeners(self) -> list[socket.socket]:
        """Return the sockets of the API and of the health checks."""
        return [socket.socket(fileno=each) for each in self.listeners]

    def readiness_of_all(self, own: Readiness) -> Readiness:
        """Return the readiness of all workers, given that of this one."""

        async def combined() -> Mapping[str, bool]:
            return self.reports.combine(await own(), self.number)

        return combined

    async def report(self, own: Readiness) -> None:
        """Report this worker's readiness, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_PATIENCE):
                    parts = await own()
            except TimeoutError:
                parts = {"database": False}
            with suppress(FileNotFoundError):  # the supervisor has died
                self.reports.write(self.number, parts)
            await asyncio.sleep(_PAUSE)

    def report_error(self, error: str) -> None:
        """Report the error that ends this worker; the supervisor prints it once for all."""
        with suppress(FileNotFoundError):  # the supervisor has died
            self.reports.write(self.number, {}, error=error)

    def watch_supervisor(self, on_death: Callable[[], None]) -> None:
        """Call `on_death` if the supervisor dies: a worker is not to outlive it, unseen and without a restart."""
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(self.lifeline)
            shutil.rmtree(self.directory, ignore_errors=True)  # the supervisor can no longer remove it
            on_death()

        loop.add_reader(self.lifeline, end)
