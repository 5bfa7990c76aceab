"""Measure all systems in one run, round by round, and print what each makes of it: `make bench`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from io import StringIO
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table
from testcontainers.core.config import testcontainers_config

from benchmarks.measure import DURABLE_POSTGRESQL, SYSTEMS, Case, Figures, Ground, median
from tests.servers import RABBITMQ, find

_FULL = (
    Case(orders=60, at_once=1),
    Case(orders=300, at_once=10),
    Case(orders=1_500, at_once=100),
    Case(orders=3_000, at_once=1_000),
    Case(orders=1_500, at_once=100, refused=0.3),
)
_QUICK = (Case(orders=30, at_once=1), Case(orders=500, at_once=100))
_WARM_UP = Case(orders=200, at_once=50, refused=0.1)
#: The usual stack is given fewer orders: it would take the most of the time otherwise.
_SLOW, _SHARE = "usual stack", 4


def main() -> int:
    """Return 0 if each system was right, however fast it was."""
    asked = _arguments()
    testcontainers_config.ryuk_disabled = True
    console = Console()
    with ExitStack() as stack:
        broker, postgres = (stack.enter_context(find(kind)) for kind in (RABBITMQ, DURABLE_POSTGRESQL))
        figures = asyncio.run(_measure(Ground(broker.url, postgres.url), asked, console))
    _print(console, figures)
    if asked.report:
        _write(figures, asked.report)
    wrong = [violation for each in figures for violation in each.violations]
    for violation in wrong:
        console.print(f"✗ {violation}", style="bold red", markup=False)
    return 1 if wrong else 0


async def _measure(ground: Ground, asked: argparse.Namespace, console: Console) -> list[Figures]:
    """Have the systems take turns, so that what else the machine does meets all of them."""
    cases = _QUICK if asked.quick else _FULL
    chosen = [system for system in SYSTEMS if not asked.systems or system.name in asked.systems]
    found: dict[tuple[str, Case], list[Figures]] = {}
    for turn, system in product(range(asked.rounds), chosen):
        console.print(f"round {turn + 1} of {asked.rounds}: {system.name}", style="dim")
        share = _SHARE if system.name == _SLOW else 1
        loads = [
            Case(orders=max(case.orders // share, case.at_once), at_once=case.at_once, refused=case.refused)
            for case in cases
        ]
        for case, figures in zip(cases, await ground.measure(system, loads, warm_up=_WARM_UP), strict=True):
            found.setdefault((system.name, case), []).append(figures)
    return [median(rounds) for rounds in found.values()]


def _print(console: Console, figures: Sequence[Figures]) -> None:
    for at_once, refused in dict.fromkeys((each.at_once, each.refused) for each in figures):
        some = [each for each in figures if (each.at_once, each.refused) == (at_once, refused)]
        table = Table(title=f"{at_once} at once, {refused:.0%} refused", box=None, title_justify="left")
        for column in (
            "system",
            "sagas/s",
            "to usual",
            "to by hand",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "CPU ms",
            "MiB",
            "statements",
            "commits",
        ):
            table.add_column(column, justify="left" if column == "system" else "right")
        for each in some:
            table.add_row(*_row(each, some))
        console.print(table)


def _row(one: Figures, beside: Sequence[Figures]) -> list[str]:
    rates = {each.system: each.sagas_per_second for each in beside}
    ratios = [
        f"{one.sagas_per_second / rates[name]:.2f}" if name in rates else "-" for name in ("usual stack", "by hand")
    ]
    numbers = [f"{value:.1f}" for value in (one.p50, one.p95, one.p99, one.cpu)]
    work = [f"{one.peak_memory:.0f}", f"{one.statements:.2f}", f"{one.commits:.2f}"]
    return [one.system, f"{one.sagas_per_second:.0f}", *ratios, *numbers, *work]


def _write(figures: Sequence[Figures], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    page = Console(record=True, width=140, file=StringIO())
    _print(page, figures)
    facts = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": platform.platform(),
        "cores": os.cpu_count(), "python": platform.python_version(),
        **{name: version(name) for name in ("faststream", "aio-pika", "sqlalchemy", "asyncpg")},
    }  # fmt: skip
    (directory / "benchmark.json").write_text(
        json.dumps({"facts": facts, "figures": [asdict(each) for each in figures]}, indent=1) + "\n"
    )
    about = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    (directory / "benchmark.md").write_text(
        "# The benchmark\n\nWritten by `make bench`: medians of interleaved rounds, all systems in the same run.\n\n"
        f"```text\n{page.export_text()}```\n\n| where | |\n|---|---|\n{about}\n"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("systems", nargs="*", help="only these; all by default")
    parser.add_argument("--quick", action="store_true", help="two loads instead of all")
    parser.add_argument("--rounds", type=int, default=3, help="how often each system has its turn")
    parser.add_argument("--report", type=Path, help="the directory of the report; none by default")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
