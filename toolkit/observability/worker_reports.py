"""The reports of a service's workers: each process writes its readiness, so that any of them can answer for all.

A report is a small file that is replaced as a whole. A worker that has died, hangs, or has not started yet has no
current report.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

#: Seconds for which a report is current: several times the pause between two, and the wait for a database that is down.
_CURRENT = 10


@dataclass(frozen=True, slots=True)
class Report:
    """A worker's last report.

    - `at`: when it was written, by the clock that all processes of a machine share.
    - `parts`: whether broker, database and relay work.
    - `error`: the reason for which the worker has ended itself.
    """

    pid: int
    at: float
    parts: dict[str, bool]
    error: str | None = None

    @property
    def age(self) -> float:
        """The seconds since it was written."""
        return time.clock_gettime(time.CLOCK_MONOTONIC) - self.at


class WorkerReports:
    """The reports of the workers 1 to `count`, in a directory of the service's own."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self._count = count

    def write(self, worker: int, parts: Mapping[str, bool], *, error: str | None = None) -> None:
        """Replace a worker's report; the worker itself calls this."""
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        report = Report(os.getpid(), now, dict(parts), error)
        draft = self._path(worker).with_suffix(".draft")
        draft.write_text(json.dumps(asdict(report)))
        draft.replace(self._path(worker))

    def read(self, worker: int) -> Report | None:
        """Return a worker's report; None before the first one."""
        try:
            return Report(**json.loads(self._path(worker).read_text()))
        except FileNotFoundError:
            return None

    def remove(self, worker: int) -> None:
        """Remove the report of a worker that has ended."""
        self._path(worker).unlink(missing_ok=True)

    def current(self) -> Iterator[tuple[int, Report | None]]:
        """Return each worker's number, with its report if that is current."""
        for worker in range(1, self._count + 1):
            report = self.read(worker)
            yield worker, report if report and report.age < _CURRENT else None

    def combine(self, own: Mapping[str, bool], worker: int) -> dict[str, bool]:
        """Return the readiness of all workers, given that of one: a part is true if it is true in each of them.

        A worker without a current report is named, and false.
        """
        combined = dict(own)
        for other, report in self.current():
            if other == worker:
                continue
            for part, works in (report.parts if report else {f"worker {other}": False}).items():
                combined[part] = combined.get(part, True) and works
        return combined

    def _path(self, worker: int) -> Path:
        return self._directory / f"worker-{worker}.json"
