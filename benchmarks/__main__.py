"""Measure all systems in one run, in turns, and compare them with the toolkit's goals: `make bench`."""

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

from benchmarks import facts, report
from benchmarks.backlog import drain
from benchmarks.catalogue import SYSTEMS, System, system_named
from benchmarks.counters import Counts
from benchmarks.databases import DURABLE_POSTGRESQL
from benchmarks.goals import Results
from benchmarks.instructions import last_report
from benchmarks.load import Case
from benchmarks.measure import Statistics, measure, median
from benchmarks.old_entries import compare
from benchmarks.parts import kept
from benchmarks.running import Servers
from tests.servers import RABBITMQ, find

#: The loads of the first round; goals depend on the alone, on the hundred at once, and on the refused of the toolkit.
_ALONE, _TEN = Case(orders=100, at_once=1), Case(orders=200, at_once=10)
_HUNDRED, _THOUSAND = Case(orders=1_000, at_once=100), Case(orders=1_500, at_once=1_000)
_REFUSED = Case(orders=800, at_once=100, refused=0.3)
_FIRST, _LATER = (_ALONE, _TEN, _HUNDRED, _THOUSAND, _REFUSED), (_ALONE, _HUNDRED, _REFUSED)
_QUICK = (Case(orders=30, at_once=1), Case(orders=500, at_once=100))
#: The systems whose figures alone, and whose refused ones, decide a goal.
_DECIDE_ALONE, _DECIDE_REFUSED = {"by hand", "toolkit"}, {"toolkit"}
#: Seconds that all rounds and the first one may take; and the least part of a load that is left on a slow machine.
_LONGEST, _LONGEST_FIRST, _LEAST_PART = 400.0, 240.0, 0.2
_WARM_UP, _COUNTED = Case(orders=200, at_once=50, refused=0.1), Case(orders=300, at_once=100)


def main() -> int:
    """Return 0 if each system did what it should, however fast it was."""
    arguments = _arguments()
    testcontainers_config.ryuk_disabled = True
    console = Console()
    if not console.is_terminal:
        console.width = 140
    with ExitStack() as stack:
        broker, postgres = (stack.enter_context(find(kind)) for kind in (RABBITMQ, DURABLE_POSTGRESQL))
        about = {"when": facts.now(), **facts.machine(), **asyncio.run(facts.servers(broker, postgres))}
        servers = Servers(broker.url, postgres.url)
        measured, counts = asyncio.run(_measure(servers, arguments, console))
        is_whole = not (arguments.quick or arguments.systems)
        errors: list[str] = []
        pairs = kept("the old entries", compare(servers), errors) if is_whole else None
        backlog = kept("the backlog", drain(servers), errors) if is_whole else None
    figures = [median(each) for each in measured]
    about["rounds"] = f"{max(map(len, measured))} of {arguments.rounds}"
    results = Results(
        figures=figures,
        counts=counts,
        instructions=last_report().get("instructions", {}),
        backlog=backlog,
        old_entries=pairs,
        errors=errors,
        facts=about | facts.packages(),
    )
    report.show(console, results)
    if arguments.report:
        written = report.write(results, arguments.report)
        console.print(f"written: {', '.join(map(str, written))}")
    for violation in results.violations():
        console.print(f"✗ {violation}", style="bold red", markup=False)
    return 1 if results.is_wrong() else 0


async def _measure(
    servers: Servers, arguments: argparse.Namespace, console: Console
) -> tuple[list[list[Statistics]], dict[str, Counts]]:
    """Measure the systems in turns, so that whatever else the machine does affects all of them.

    Return the figures of each round, for each system and load.
    """
    chosen = [system_named(name) for name in arguments.systems] or list(SYSTEMS)
    found: dict[tuple[str, int, float], list[Statistics]] = {}
    counts: dict[str, Counts] = {}
    began, part = time.monotonic(), 1.0
    for turn, (place, system) in product(range(arguments.rounds), enumerate(chosen)):
        if turn == 0 and place:
            part = _part((time.monotonic() - began) / place * len(chosen), _LONGEST_FIRST)
        elif turn == 1 and not place:
            first = time.monotonic() - began
            # The later rounds measure about half of what the first one does.
            part *= _part(first * (arguments.rounds - 1) / 2, _LONGEST - first)
        loads = _loads(system, turn, part, is_quick=arguments.quick)
        is_late = turn > 0 and time.monotonic() - began > _LONGEST
        if not loads or is_late or (turn and not system.decides):
            continue
        console.print(f"round {turn + 1} of {arguments.rounds}: {system.name}", style="dim")
        measured = await measure(system, servers, loads, warm_up=_WARM_UP, counted=None if turn else _COUNTED)
        for case, figures in zip(loads, measured.figures, strict=True):
            found.setdefault((system.name, case.at_once, case.refused), []).append(figures)
        if measured.counts:
            counts[system.name] = measured.counts
    return list(found.values()), counts


def _part(expected: float, longest: float) -> float:
    """Return the part of its orders that a load has, so that a slow machine ends in time, too."""
    return min(1.0, max(longest / expected, _LEAST_PART))


def _loads(system: System, turn: int, part: float, *, is_quick: bool) -> list[Case]:
    """Return a system's loads in this round: in the later ones, those only on which a goal depends."""
    loads = []
    for case in _QUICK if is_quick else _LATER if turn else _FIRST:
        decides = (case.at_once > 1 or system.name in _DECIDE_ALONE) and (
            not case.refused or system.name in _DECIDE_REFUSED
        )
        is_measured = decides if turn else system.decides or not case.refused
        if (not system.at_once or case.at_once in system.at_once) and is_measured:
            orders = max(round(case.orders * system.share * part), case.at_once, 10)
            loads.append(Case(orders=orders, at_once=case.at_once, refused=case.refused))
    return loads


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("systems", nargs="*", help="only these; all by default")
    parser.add_argument("--quick", action="store_true", help="two loads instead of all, no backlog, no old entries")
    parser.add_argument("--rounds", type=int, default=3, help="how often each system is measured")
    parser.add_argument("--report", type=Path, help="the directory of the report; none by default")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
