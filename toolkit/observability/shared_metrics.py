"""The counters of a service's workers on one page: each process keeps its own in files, and any of them adds them up.

This is the multiprocess mode of `prometheus_client`. A worker that replaces a dead one continues its files, so that no
sum falls.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, ProcessCollector, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from toolkit.observability.worker_reports import WorkerReports


@dataclass(slots=True)
class _Sharing:
    """The files that this process shares, if it is a worker."""

    directory: Path | None = None
    reports: WorkerReports | None = None


_sharing = _Sharing()


def share(directory: Path, worker: int, reports: WorkerReports) -> None:
    """Keep this process's counters in files of this directory; to be called before any of them is made."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)  # the library reads it whenever it makes a value
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
    _sharing.directory, _sharing.reports = directory, reports


def counters() -> bytes:
    """Return the page of this process's metrics; in a worker, the sums over all workers, and each one's own."""
    if _sharing.directory is None or _sharing.reports is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(_sharing.directory))  # type: ignore[no-untyped-call]
    registry.register(_Processes(_sharing.reports))
    return generate_latest(registry)


class _Processes(Collector):
    """Memory, CPU and files of each worker, which have no sum that would be of use."""

    def __init__(self, reports: WorkerReports) -> None:
        self._reports = reports

    def collect(self) -> Iterator[Metric]:
        families = dict[str, Metric]()
        for worker, report in self._reports.current():
            if report:
                _add(families, worker, _of_process(report.pid))
        yield from families.values()


def _of_process(pid: int) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: pid, registry=None).collect()


def _add(families: dict[str, Metric], worker: int, found: Iterable[Metric]) -> None:
    for metric in found:
        family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
        for sample in metric.samples:
            family.add_sample(sample.name, {"worker": str(worker)}, sample.value)
