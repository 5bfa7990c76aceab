"""What a run of the benchmark found: tables for a terminal, JSON for a script, a page and a plot for the reader."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import matplotlib
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Statistics

_COLUMNS = (
    "system", "sagas/s", "to usual", "to by hand", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "client", "idle", "MiB",
    "statements", "commits",
)  # fmt: skip
_PACKAGES = ("faststream", "aio-pika", "aiormq", "sqlalchemy", "sqlmodel", "asyncpg", "aiosqlite", "dbos")

#: A system's figures at one load: its name, how many at once, and the share that is refused.
Found = dict[tuple[str, int, float], Statistics]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A ratio that is to be reached; `ratio` raises KeyError where the run did not measure it."""

    what: str
    ratio: Callable[[Found], float]
    least: float
    aim: float
    lower_is_better: bool = False

    def is_met(self, reached: float) -> bool:
        """Whether the ratio is at least what it has to be."""
        return reached <= self.least if self.lower_is_better else reached >= self.least


def _rates(one: str, other: str, *, refused: float = 0.0) -> Callable[[Found], float]:
    return lambda found: (
        found[one, 100, refused].sagas_per_second / found[other, 100, 0.0].sagas_per_second
    )  # at 100 at once


GOALS = (
    Goal(what="against the usual stack", ratio=_rates("toolkit", "usual stack"), least=8, aim=15),
    Goal(what="against the hand-written limit", ratio=_rates("toolkit", "by hand"), least=0.5, aim=1),
    Goal(what="against DBOS", ratio=_rates("toolkit", "DBOS"), least=15, aim=25),
    Goal(
        what="p50 of a saga alone, against the limit's",
        ratio=lambda found: found["toolkit", 1, 0.0].p50 / found["by hand", 1, 0.0].p50,
        least=2,
        aim=1.1,
        lower_is_better=True,
    ),
    Goal(what="SQLite against PostgreSQL", ratio=_rates("toolkit, SQLite", "toolkit"), least=0.6, aim=0.9),
    Goal(
        what="1,000,000 old entries against none",
        ratio=_rates("toolkit, 1,000,000 old entries", "toolkit"),
        least=0.9,
        aim=1,
    ),
    Goal(what="30 % compensating against 0 %", ratio=_rates("toolkit", "toolkit", refused=0.3), least=0.5, aim=0.6),
)


def show(console: Console, figures: Sequence[Statistics]) -> None:
    """Print a table for each load, and how far the goals were reached."""
    for at_once, refused in dict.fromkeys((each.at_once, each.refused) for each in figures):
        some = [each for each in figures if (each.at_once, each.refused) == (at_once, refused)]
        table = Table(title=f"{at_once} at once, {refused:.0%} refused", box=None, title_justify="left")
        for column in _COLUMNS:
            table.add_column(column, justify="left" if column == "system" else "right", no_wrap=True)
        for each in some:
            table.add_row(*_row(each, some))
        console.print(table)
        console.print()
    if reached := _reached(figures):
        table = Table(title="100 at once, PostgreSQL, one process", box=None, title_justify="left")
        for column in ("toolkit", "reached", "at least", "aim", ""):
            table.add_column(column, justify="left" if column == "toolkit" else "right")
        for goal, ratio in reached:
            sign = "≤" if goal.lower_is_better else "≥"
            verdict = "[green]met[/]" if goal.is_met(ratio) else "[red]missed[/]"
            table.add_row(goal.what, f"{ratio:.2f}", f"{sign} {goal.least:g}", f"{sign} {goal.aim:g}", verdict)
        console.print(table)


def write(figures: Sequence[Statistics], directory: Path) -> list[Path]:
    """Write `benchmark.json`, `benchmark.md` and `benchmark.png`, and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"benchmark.{ending}" for ending in ("json", "md", "png")]
    facts = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory():.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }
    ratios = {goal.what: round(ratio, 3) for goal, ratio in _reached(figures)}
    found = {"facts": facts, "ratios": ratios, "figures": [_plain(each) for each in figures]}
    paths[0].write_text(json.dumps(found, indent=1) + "\n")
    page = Console(record=True, width=160, file=StringIO())
    show(page, figures)
    about = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    paths[1].write_text(
        "# The benchmark\n\nWritten by `make bench`: medians of interleaved rounds, all systems in the same run, on "
        "the same servers.\nWhat the figures say is told in [performance](../explanation/performance.md).\n\n"
        f"![Sagas per second, and how long one takes](benchmark.png)\n\n```text\n{page.export_text()}```\n\n"
        f"| where | |\n|---|---|\n{about}\n"
    )
    _plot(figures, paths[2])
    return paths


def _reached(figures: Sequence[Statistics]) -> list[tuple[Goal, float]]:
    found = {(each.system, each.at_once, each.refused): each for each in figures}
    reached = []
    for goal in GOALS:
        try:
            reached.append((goal, goal.ratio(found)))
        except KeyError:
            continue
    return reached


def _row(one: Statistics, beside: Sequence[Statistics]) -> list[str]:
    rates = {each.system: each.sagas_per_second for each in beside}
    ratios = [
        f"{one.sagas_per_second / rates[name]:.2f}" if name in rates else "-" for name in ("usual stack", "by hand")
    ]
    numbers = [f"{value:.1f}" for value in (one.p50, one.p95, one.p99, one.cpu)]
    numbers.append("-" if math.isnan(one.client_cpu) else f"{one.client_cpu:.2f}")
    counts = ["-" if math.isnan(value) else f"{value:.2f}" for value in (one.statements, one.commits)]
    shares = [f"{one.idle:.0%}", f"{one.peak_memory:.0f}"]
    return [one.system, f"{one.sagas_per_second:.0f}", *ratios, *numbers, *shares, *counts]


def _plain(one: Statistics) -> dict[str, object]:
    """Return figures as JSON can hold them, which knows no NaN."""
    values = asdict(one).items()
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values}


def _plot(figures: Sequence[Statistics], path: Path) -> None:
    """Draw throughput and latency against concurrency, a line for each system that had several loads."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for system, marker in zip(dict.fromkeys(each.system for each in figures), "osD^vPX*p", strict=False):
        line = sorted((each.at_once, each) for each in figures if each.system == system and not each.refused)
        if len(line) > 1:
            at_once = [each for each, _ in line]
            left.plot(at_once, [each.sagas_per_second for _, each in line], marker=marker, label=system)
            right.plot(at_once, [each.p50 for _, each in line], marker=marker, label=system)
    for axes, name in ((left, "sagas per second"), (right, "p50 of a saga, ms")):
        axes.set(xscale="log", yscale="log", xlabel="sagas at once", ylabel=name)
        axes.grid(visible=True, which="both", alpha=0.25)
    right.legend()
    figure.savefig(path, dpi=110)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a processor")


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
