"""Shows the results of a run as tables in a terminal, and writes them as JSON, as a page and as a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import matplotlib
from rich.console import Console
from rich.table import Table

from benchmarks.goals import Results, reached
from benchmarks.measure import Statistics

_COLUMNS = (
    "system", "sagas/s", "to usual", "to by hand", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "client's", "idle", "MiB",
)  # fmt: skip
_COUNTED = (
    "system", "sends", "turns", "round trips", "transactions", "round trips each", "statements", "commits",
    "instructions",
)  # fmt: skip
#: The loads of a system that has a line in the plot.
_LEAST_POINTS = 3
_PAGE = """# The benchmark

Written by `make bench`: medians of interleaved rounds, all systems in the same run, on the same servers.
[Performance](../explanation/performance.md) explains the figures.

![Sagas per second, and the time of one](benchmark.png)

- sagas/s: sagas that ended, a second; "to usual" and "to by hand" are its ratios to those systems.
- p50, p95, p99: half, 19 of 20, and 99 of 100 sagas took no longer.
- CPU: of the system's processes, for each saga; the client has a process of its own, whose CPU is beside it.
- idle: the unused share of the whole machine. MiB: the highest memory of the system's processes.

```text
{tables}```

| where | |
|---|---|
{facts}
"""


def show(console: Console, results: Results) -> None:
    """Print a table for each load, what was counted, and how far the goals were reached."""
    for at_once, refused in dict.fromkeys((each.at_once, each.refused) for each in results.figures):
        some = [each for each in results.figures if (each.at_once, each.refused) == (at_once, refused)]
        _print(console, f"{at_once} at once, {refused:.0%} refused", _COLUMNS, (_row(each, some) for each in some))
    if results.counts or results.instructions:
        title = "counted for each saga, 100 at once; instructions in millions, from the last make bench-instructions"
        _print(console, title, _COUNTED, _counted(results))
    goals = [
        (
            goal.what,
            f"{figure:.2f}",
            f"{'≤' if goal.lower_is_better else '≥'} {goal.least:g}",
            f"{'≤' if goal.lower_is_better else '≥'} {goal.aim:g}",
            "[green]aim met[/]" if goal.is_aim_met(figure) else "met" if goal.is_met(figure) else "[red]missed[/]",
        )
        for goal, figure in reached(results)
    ]
    _print(console, "beside these loads", ("measured", "figures"), _further(results))
    _print(console, "the toolkit, one process, 100 at once", ("goal", "reached", "at least", "aim", ""), goals)


def write(results: Results, directory: Path) -> list[Path]:
    """Write `benchmark.json`, `benchmark.md` and `benchmark.png`, and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"benchmark.{ending}" for ending in ("json", "md", "png")]
    goals = {
        goal.what: {"reached": round(figure, 3), "at least": goal.least, "aim": goal.aim, "met": goal.is_met(figure)}
        for goal, figure in reached(results)
    }
    found = {
        "facts": results.facts,
        "goals": goals,
        "figures": [_plain(each) for each in results.figures],
        "counts": {name: asdict(each) for name, each in results.counts.items()},
        "instructions": results.instructions,
        "backlog": asdict(results.backlog) if results.backlog else None,
        "old entries": asdict(results.old_entries) if results.old_entries else None,
    }
    paths[0].write_text(json.dumps(found, indent=1) + "\n")
    page = Console(record=True, width=160, file=StringIO())
    show(page, results)
    facts = "\n".join(f"| {name} | {value} |" for name, value in results.facts.items())
    paths[1].write_text(_PAGE.format(tables=page.export_text(), facts=facts))
    _plot(results.figures, paths[2])
    return paths


def _print(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, box=None, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    if table.rows:
        console.print(table)
        console.print()


def _row(one: Statistics, beside: Sequence[Statistics]) -> list[str]:
    rates = {each.system: each.sagas_per_second for each in beside}
    ratios = [
        f"{one.sagas_per_second / rates[name]:.2f}" if name in rates else "-" for name in ("usual stack", "by hand")
    ]
    times = [f"{value:.1f}" for value in (one.p50, one.p95, one.p99)]
    cpu = [_number(one.cpu), _number(one.client_cpu)]
    return [
        one.system,
        f"{one.sagas_per_second:.0f}",
        *ratios,
        *times,
        *cpu,
        f"{one.idle:.0%}",
        f"{one.peak_memory:.0f}",
    ]


def _counted(results: Results) -> Iterable[list[str]]:
    """Return a row for each system with a count."""
    for name in dict.fromkeys(each.system for each in results.figures):
        counts, instructions = results.counts.get(name), results.instructions.get(name)
        try:
            loaded = results.at(name, 100)
        except KeyError:
            continue
        numbers = [counts.sends, counts.turns] if counts else [math.nan] * 2
        database = [math.nan] * 3
        if counts and counts.transactions:
            database = [counts.round_trips, counts.transactions, counts.round_trips / counts.transactions]
        figures = [*numbers, *database, loaded.statements, loaded.commits, (instructions or math.nan) / 1e6]
        if not all(map(math.isnan, figures)):
            yield [name, *map(_number, figures)]


def _further(results: Results) -> Iterable[list[str]]:
    """Return a row for the backlog and one for the old entries, where they were measured."""
    if backlog := results.backlog:
        rates = f"{backlog.events_per_second:.0f} a second, by hand {backlog.limit:.0f}"
        share = backlog.events_per_second / backlog.limit
        what = f"a backlog of {backlog.events:,} expired events, one process"
        yield [what, f"{rates}: {share:.2f} of it; {backlog.peak_memory:.0f} MiB at most"]
    if pairs := results.old_entries:
        least, greatest, number = pairs.ratios[0], pairs.ratios[-1], len(pairs.ratios)
        yield [
            "sagas/s with 1,000,000 old entries by those without",
            f"{pairs.ratio:.3f}, the median of {number} pairs from {least:.2f} to {greatest:.2f}",
        ]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _plain(one: Statistics) -> dict[str, object]:
    """Return figures as JSON can hold them: without NaN."""
    values = asdict(one).items()
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values}


def _plot(figures: Sequence[Statistics], path: Path) -> None:
    """Draw throughput and latency against concurrency, a line for each system that had most of the loads."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5), layout="constrained")
    lines = {
        system: sorted(
            (each for each in figures if each.system == system and not each.refused), key=lambda each: each.at_once
        )
        for system in dict.fromkeys(each.system for each in figures)
    }
    drawn = {system: line for system, line in lines.items() if len(line) >= _LEAST_POINTS}
    for (system, line), marker in zip(drawn.items(), "osD^vPX*p<>", strict=False):
        at_once, style = [each.at_once for each in line], "--" if system.startswith("by hand") else "-"
        left.plot(at_once, [each.sagas_per_second for each in line], style, marker=marker, label=system)
        right.plot(at_once, [each.p50 for each in line], style, marker=marker, label=system)
    for axes, name in ((left, "sagas per second"), (right, "p50 of a saga, ms")):
        axes.set(xscale="log", yscale="log", xlabel="sagas at once", ylabel=name)
        axes.grid(visible=True, which="both", alpha=0.25)
    right.legend(fontsize="small")
    figure.savefig(path, dpi=110)
