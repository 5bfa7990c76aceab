"""The readiness of a service's workers, as one of them reads it from the reports of all."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.observability import worker_reports
from toolkit.observability.worker_reports import WorkerReports

FINE = {"broker": True, "database": True, "relay": True}


@pytest.fixture
def reports(tmp_path: Path) -> WorkerReports:
    return WorkerReports(tmp_path, 3)


def test_all_parts_of_all_workers_are_combined(reports: WorkerReports) -> None:
    reports.write(2, FINE | {"broker": False})
    reports.write(3, FINE | {"watchdog": False})

    assert reports.combine(FINE, 1) == {"broker": False, "database": True, "relay": True, "watchdog": False}


def test_a_worker_without_a_report_is_named(reports: WorkerReports) -> None:
    reports.write(2, FINE)
    reports.write(3, FINE)
    reports.remove(3)

    assert reports.combine(FINE, 1) == FINE | {"worker 3": False}


def test_an_old_report_of_a_worker_counts_for_nothing(reports: WorkerReports, monkeypatch: pytest.MonkeyPatch) -> None:
    for worker in (1, 2, 3):
        reports.write(worker, FINE)
    monkeypatch.setattr(worker_reports, "_CURRENT", 0)

    assert reports.combine(FINE, 2) == FINE | {"worker 1": False, "worker 3": False}
