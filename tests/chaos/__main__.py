"""Run chaos at full size, and write docs/reports/chaos.md and chaos.json: `make chaos`, or `python -m tests.chaos`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn
from testcontainers.core.config import testcontainers_config

from tests.chaos import report, runs
from tests.chaos.outcome import Outcome
from tests.chaos.outcome import Progress as Count
from tests.chaos.partition_runs import partitions
from tests.chaos.plan import Fault, Size
from tests.chaos.recovery_runs import recovery
from tests.chaos.releases import releases
from tests.chaos.world import Servers, servers

RUNS = ("chaos", "coordinated", "duplicates", "commit-order", "partitions", "recovery", "releases")


def main() -> int:
    """Return 0 if no run found a violation."""
    options = arguments()
    # The containers are removed on leaving; Ryuk, which removes them otherwise, is not available here.
    testcontainers_config.ryuk_disabled = True
    console, outcomes = Console(), []
    with (
        servers() as own,
        Progress(
            SpinnerColumn(),
            *Progress.get_default_columns()[:1],
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        ) as bar,
    ):
        for run in options.runs:
            console.print(f"{run}, seed {options.seed}", style="bold")
            outcomes.append(asyncio.run(_run(run, own, options, _counting(bar))))
            _print(console, outcomes[-1])
            written = report.write(outcomes, options.report)  # after each, so that an interrupted run keeps its results
    console.print(f"written: {', '.join(map(str, written))}")
    return 1 if any(outcome.violations for outcome in outcomes) else 0


async def _run(run: str, own: Servers, options: argparse.Namespace, progress: Count) -> Outcome:
    seed = options.seed
    match run:
        case "chaos" | "coordinated":
            is_coordinated = run == "coordinated"
            size = Size.of(options.coordinated if is_coordinated else options.sagas, rate=options.rate)
            only = options.only or tuple(Fault)
            return await runs.chaos(own, size, seed=seed, progress=progress, only=only, is_coordinated=is_coordinated)
        case "duplicates":
            return await runs.duplicates(own, deliveries=options.deliveries, seed=seed, progress=progress)
        case "commit-order":
            return await runs.commit_order(own, pairs=options.pairs, seed=seed, progress=progress)
        case "partitions":
            return await partitions(own, lengths=(10, 30), seed=seed, progress=progress)
        case "releases":
            return await releases(own, sagas=options.released, progress=progress)
        case _:
            return await recovery(own, kills=options.kills, seed=seed, progress=progress)


def _counting(bar: Progress) -> Callable[[str, int], None]:
    """Return a function that counts, with a line for each thing."""
    lines = {}

    def count(what: str, more: int) -> None:
        if what not in lines:
            lines[what] = bar.add_task(what, total=None)
        bar.advance(lines[what], more)

    return count


def _print(console: Console, outcome: Outcome) -> None:
    for name, figure in outcome.figures.items():
        console.print(f"  {name}: {figure}", highlight=False)
    for violation in outcome.violations[:20]:
        console.print(f"  ✗ {violation}", style="bold red", highlight=False, markup=False)
    summary = f"✗ {len(outcome.violations)} violations" if outcome.violations else "✓ no violation"
    console.print(f"  {summary}, {outcome.seconds:.0f} s", style="bold red" if outcome.violations else "bold green")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what was options for, at the command line by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    known = ", ".join(RUNS)
    parser.add_argument("runs", nargs="*", type=_run_name, metavar="RUN", help=f"any of {known}; all by default")
    parser.add_argument("--seed", type=int, default=1, help="the same seed is the same plan")
    parser.add_argument("--sagas", type=int, default=20_000, help="sagas of the chaos run; faults in proportion")
    parser.add_argument("--coordinated", type=int, default=5_000, help="sagas of the run with a coordinator")
    parser.add_argument("--rate", type=float, default=10, help="sagas per second; what the machine takes in outages")
    parser.add_argument("--only", nargs="*", type=_fault_name, metavar="FAULT", help="these classes alone, by name")
    parser.add_argument("--deliveries", type=int, default=50_000, help="deliveries of the duplicates run, at least")
    parser.add_argument("--pairs", type=int, default=10_000, help="pairs of transactions of the commit order run")
    parser.add_argument("--kills", type=int, default=3, help="kills of each service, alone and beside a replica")
    parser.add_argument("--released", type=int, default=200, help="orders of each scenario of the releases run")
    parser.add_argument("--report", type=Path, default=Path("docs/reports"), help="the directory of the report")
    options = parser.parse_args(given)
    options.runs = options.runs or list(RUNS)
    return options


def _run_name(name: str) -> str:
    if name not in RUNS:
        raise argparse.ArgumentTypeError(f"there is no run {name!r}; take any of {', '.join(RUNS)}")
    return name


def _fault_name(name: str) -> Fault:
    if name not in Fault.__members__:
        raise argparse.ArgumentTypeError(f"there is no fault {name!r}; take any of {', '.join(Fault.__members__)}")
    return Fault[name]


if __name__ == "__main__":
    sys.exit(main())
