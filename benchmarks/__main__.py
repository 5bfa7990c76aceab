"""Measure all systems in one run, round by round, and print what each makes of it: `make bench`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from rich.console import Console
from testcontainers.core.config import testcontainers_config

from benchmarks import report
from benchmarks.databases import DURABLE_POSTGRESQL
from benchmarks.load import Case
from benchmarks.measure import SYSTEMS, Ground, Statistics, System, median
from tests.servers import RABBITMQ, find

_FULL = (
    Case(orders=100, at_once=1),
    Case(orders=200, at_once=10),
    Case(orders=1_000, at_once=100),
    Case(orders=1_500, at_once=1_000),
    Case(orders=800, at_once=100, refused=0.3),
)
_QUICK = (Case(orders=30, at_once=1), Case(orders=500, at_once=100))
#: Seconds that all rounds may take; and of a load, what is left of it at least where the machine is slow.
_LONGEST, _LEAST_PART = 560.0, 0.25
_WARM_UP = Case(orders=200, at_once=50, refused=0.1)


def main() -> int:
    """Return 0 if each system was right, however fast it was."""
    asked = _arguments()
    testcontainers_config.ryuk_disabled = True
    console = Console()
    if not console.is_terminal:
        console.width = 130
    with ExitStack() as stack:
        broker, postgres = (stack.enter_context(find(kind)) for kind in (RABBITMQ, DURABLE_POSTGRESQL))
        figures = asyncio.run(_measure(Ground(broker.url, postgres.url), asked, console))
    report.show(console, figures)
    if asked.report:
        written = report.write(figures, asked.report)
        console.print(f"written: {', '.join(map(str, written))}")
    wrong = [violation for each in figures for violation in each.violations]
    for violation in wrong:
        console.print(f"✗ {violation}", style="bold red", markup=False)
    return 1 if wrong else 0


async def _measure(ground: Ground, asked: argparse.Namespace, console: Console) -> list[Statistics]:
    """Have the systems take turns, so that what else the machine does meets all of them."""
    chosen = [system for system in SYSTEMS if not asked.systems or system.name in asked.systems]
    found: dict[tuple[str, int, float], list[Statistics]] = {}
    began, part = time.monotonic(), 1.0
    for turn, system in product(range(asked.rounds), chosen):
        if turn == 1 and system is chosen[0]:
            part = _part_left(time.monotonic() - began, asked.rounds)
        console.print(f"round {turn + 1} of {asked.rounds}: {system.name}", style="dim")
        loads = _loads(system, _QUICK if asked.quick else _FULL, turn, part)
        for case, figures in zip(loads, await ground.measure(system, loads, warm_up=_WARM_UP), strict=True):
            found.setdefault((system.name, case.at_once, case.refused), []).append(figures)
    return [median(rounds) for rounds in found.values()]


def _part_left(first: float, rounds: int) -> float:
    """Return which part of the first round's orders the others are given, so that a slow machine ends in time, too."""
    return min(1.0, max((_LONGEST - first) / (first * (rounds - 1)), _LEAST_PART))


def _loads(system: System, cases: tuple[Case, ...], turn: int, part: float) -> list[Case]:
    """Return what a system is given in this round; the slow ones have the most at once in the first one only."""
    loads = []
    for case in cases:
        is_asked = not system.at_once or case.at_once in system.at_once
        is_endless = system.share < 1 and case.at_once >= 1_000 and turn > 0
        if is_asked and not is_endless:
            orders = max(round(case.orders * system.share * part), case.at_once, 10)
            loads.append(Case(orders=orders, at_once=case.at_once, refused=case.refused))
    return loads


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("systems", nargs="*", help="only these; all by default")
    parser.add_argument("--quick", action="store_true", help="two loads instead of all")
    parser.add_argument("--rounds", type=int, default=3, help="how often each system has its turn")
    parser.add_argument("--report", type=Path, help="the directory of the report; none by default")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
