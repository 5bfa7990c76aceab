"""The report of a run of the crash matrix, for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

import json
import platform
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.end_to_end.crash_shapes import ORDERS
from toolkit.failpoints import HANDLER, POINTS, RELAY

if TYPE_CHECKING:
    from tests.end_to_end.cells import Cell
    from tests.end_to_end.crash_matrix import Result


_PREFACE = (
    "In each cell a process sends itself a real SIGKILL at the named point while sagas run, and is started again.",
    "A cell is right when each saga has its expected end, `saga verify` finds nothing, and goods and money add up.",
    "The time to that counts from the restart, the start of Python included.",
    "`make crash` writes this page. Sagas and faults are the same in each run: there is no seed.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The results, when the run began, how long it took, and against which servers it ran."""

    results: Sequence[Result]
    began: datetime
    took: timedelta
    versions: Mapping[str, str]

    @classmethod
    def of(cls, results: Sequence[Result], *, began: datetime, took: timedelta, servers: Mapping[str, str]) -> Report:
        """Return the report of these results."""
        libraries = {name: version(name) for name in ("saga-toolkit", "faststream", "aio-pika", "sqlalchemy")}
        versions = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version, **servers, **libraries}
        return cls(results=results, began=began, took=took, versions=versions)

    @property
    def failures(self) -> list[Result]:
        """The failed cells."""
        return [each for each in self.results if each.fault]

    @property
    def kills(self) -> list[Result]:
        """The cells in which a process died at its point, and the new one recovered."""
        return [each for each in self.results if each.right_after is not None]

    @property
    def unreachable(self) -> list[Result]:
        """The unreachable cells."""
        return [each for each in self.results if each.cell.unreachable]

    def summary(self) -> str:
        """Return one line."""
        run = len(self.kills) + len(self.failures)
        return (
            f"{run} cells, {len(self.kills)} right after their kill, {len(self.failures)} failures, "
            f"{len(self.unreachable)} unreachable; convergence {self._convergence(self.kills)}"
        )

    def write(self, path: Path) -> None:
        """Write the report beside its data."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".md").write_text(self._markdown())
        path.with_suffix(".json").write_text(json.dumps(self._data(), indent=1) + "\n")

    def _data(self) -> dict[str, Any]:
        return {
            "began": self.began.isoformat(timespec="seconds"),
            "took_seconds": round(self.took.total_seconds()),
            "versions": dict(self.versions),
            "kills_by_class": dict(self._by_class()),
            "cells": [_cell(each) for each in self.results],
        }

    def _markdown(self) -> str:
        lines = [
            "# The crash matrix",
            "",
            *_PREFACE,
            "",
            "| | |",
            "|---|---|",
            f"| run | {self.began:%Y-%m-%d %H:%M} UTC, {round(self.took.total_seconds() / 60)} minutes |",
            f"| versions | {', '.join(f'{name} {number}' for name, number in self.versions.items())} |",
            f"| kills | {sum(self._by_class().values())}: "
            f"{', '.join(f'{count} {name}' for name, count in self._by_class().items())} |",
            f"| right afterwards | {len(self.kills)} of {len(self.kills) + len(self.failures)} cells |",
            f"| failures | {len(self.failures)} |",
            f"| convergence | {self._convergence(self.kills)} |",
            "",
            *self._tables(),
            *self._list("Unreachable", [f"{each.cell}: {each.cell.unreachable}" for each in self.unreachable]),
            *self._list("Failures", [f"{each.cell}: {each.fault}" for each in self.failures]),
        ]
        return "\n".join(lines).rstrip() + "\n"

    def _tables(self) -> list[str]:
        lines: list[str] = []
        for title in dict.fromkeys(_title(each.cell) for each in self.results):
            of = [each for each in self.results if _title(each.cell) == title]
            columns = list(dict.fromkeys((each.cell.service, each.cell.way) for each in of))
            seen = {(each.cell.point, each.cell.service, each.cell.way): _seconds(each) for each in of}
            kills = [each for each in of if each.right_after is not None]
            lines += [f"## {title}", "", f"Seconds until all was right; convergence {self._convergence(kills)}.", ""]
            lines += [f"| point | {' | '.join(f'{service}, {way}' for service, way in columns)} |"]
            lines += [f"|---|{'---|' * len(columns)}"]
            lines += [f"| {p} | {' | '.join(seen.get((p, *column), '') for column in columns)} |" for p in POINTS]
            lines += [""]
        return lines

    def _by_class(self) -> Counter[str]:
        return Counter(_class_of(each.cell.point) for each in self.results if each.died_after is not None)

    @staticmethod
    def _convergence(kills: Sequence[Result]) -> str:
        times = sorted(each.right_after or 0 for each in kills)
        if not times:
            return "unknown"
        p50, p99 = (times[ceil(share * len(times)) - 1] for share in (0.5, 0.99))
        return f"p50 {p50:.1f} s, p99 {p99:.1f} s, max {times[-1]:.1f} s"

    @staticmethod
    def _list(title: str, items: Sequence[str]) -> list[str]:
        return [f"## {title}", "", *(f"- {item}" for item in items or ["none"]), ""]


def _title(cell: Cell) -> str:
    return cell.database if cell.shape is ORDERS else f"{cell.shape.name}, {cell.database}"


def _cell(result: Result) -> dict[str, Any]:
    cell = result.cell
    return {
        "shape": cell.shape.name,
        "database": cell.database,
        "service": cell.service,
        "direction": cell.direction,
        "path": cell.way,
        "point": cell.point,
        "died_after": result.died_after and round(result.died_after, 2),
        "right_after": result.right_after and round(result.right_after, 2),
        "unreachable": cell.unreachable,
        "fault": result.fault,
    }


def _seconds(result: Result) -> str:
    if result.cell.unreachable:
        return "-"
    return "✗" if result.right_after is None else f"{result.right_after:.1f}"


def _class_of(point: str) -> str:
    return "in the handler" if point in HANDLER else "in the relay" if point in RELAY else "in the watchdog"
