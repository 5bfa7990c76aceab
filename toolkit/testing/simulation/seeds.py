"""Simulates sagas under faults, one run for each seed; a failure is shrunk, and names the command that replays it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from types import ModuleType
from typing import Any

from toolkit.declaration.events import Event
from toolkit.declaration.service import Service
from toolkit.errors import WorldError
from toolkit.testing.cast import service_of
from toolkit.testing.outside_system import OutsideSystem
from toolkit.testing.resources import made
from toolkit.testing.simulation.bench import Bench
from toolkit.testing.simulation.faults import KINDS, OutsideFailure
from toolkit.testing.simulation.run import Check, RunResult
from toolkit.testing.simulation.schedule import Schedule
from toolkit.testing.worker_thread import WorkerThread

#: The events from outside that one run starts: of each saga its start, or its start and its answers.
Sagas = Sequence[Event | Sequence[Event]]
#: Returns them for a seed, by its random numbers.
DrawSagas = Callable[[Random], Sagas]
#: So many shorter schedules are tried, at most.
_MOST_TRIES = 200
#: The most deliveries that a failure prints.
_MOST_LINES = 80


def simulate(
    seeds: int | Iterable[int],
    services: Sequence[Service | ModuleType],
    sagas: Sagas | DrawSagas,
    *,
    provides: Mapping[type, Any] | None = None,
    check: Check | None = None,
    faults: Sequence[str] | None = None,
    most_faults: int = 6,
    settings: Mapping[str, Any] | None = None,
    replay: Callable[[int], str] = "simulate({}, …)".format,
) -> int:
    """Run the sagas once for each seed, under the faults that the seed draws; return how many runs there were.

    - `sagas`: the events that start them, each with an id of its own; a pair or more also has the saga's answers. Or a
      function that draws them by the seed's random numbers.
    - `provides`: by type, a class or a function that makes the object which steps take: one for each run. The seed also
      draws failures of each `OutsideSystem`.
    - `check`: called at the end of each run, beside the invariants of `saga verify`; it raises an AssertionError, or
      returns what is wrong.
    - `faults`: the kinds of faults, all by default: crashes, duplicates, reordering, delays, clock jumps, publishing,
      outside.
    - `replay`: returns the command that replays a seed.

    Raises:
        AssertionError: a run violates an invariant, or the check; the text has the seed, its replay, and the shortest
            schedule that still fails.
        WorldError: there is no such kind of faults, no saga, or no service that takes a provided object.
    """
    kinds, own, runs = _kinds(faults, provides or {}), [service_of(each) for each in services], 0
    with WorkerThread("saga-simulation") as thread:
        bench = thread.run(Bench, own, provides=provides, settings=settings)
        thread.at_end(bench.close)
        for seed in [seeds] if isinstance(seeds, int) else seeds:
            schedule = Schedule.of(seed, _drawn(sagas, seed), services=bench.names, kinds=kinds, most=most_faults)
            result = thread.run(bench.run, schedule, check)
            runs += 1
            if result.violations:
                shortest, shown = thread.run(_shrunk, bench, schedule, result, check)
                raise AssertionError(_failure(schedule, result, shortest, shown, replay(seed)))
    return runs


def _kinds(faults: Sequence[str] | None, provides: Mapping[type, Any]) -> list[str]:
    """Return the kinds of faults that are drawn; outside systems fail where one is provided."""
    if unknown := sorted(set(faults or ()) - set(KINDS)):
        raise WorldError(f"there are no faults of the kind {', '.join(unknown)}: take some of {', '.join(KINDS)}")
    has_outside = any(isinstance(made(each), OutsideSystem) for each in provides.values())
    return [each for each in (KINDS if faults is None else faults) if each != "outside" or has_outside]


def _drawn(sagas: Sagas | DrawSagas, seed: int) -> list[Sequence[Event]]:
    """Return the events of each saga of a seed."""
    drawn = sagas(Random(seed)) if callable(sagas) else sagas  # noqa: S311 -- the same sagas for the same seed
    listed: list[Sequence[Event]] = [[each] if isinstance(each, Event) else list(each) for each in drawn]
    if not listed:
        raise WorldError("a simulation has no saga: pass the events that start some")
    return listed


def _shrunk(bench: Bench, schedule: Schedule, result: RunResult, check: Check | None) -> tuple[Schedule, RunResult]:
    """Return the shortest schedule found that still fails, fewer faults before fewer sagas, and its result."""
    tries, is_shorter = 0, True
    while is_shorter:
        is_shorter = False
        for smaller in schedule.smaller():
            if tries == _MOST_TRIES:
                return schedule, result
            tries += 1
            found = bench.run(smaller, check)
            if found.violations:
                schedule, result, is_shorter = smaller, found, True
                break
    return schedule, result


def _failure(schedule: Schedule, first: RunResult, shortest: Schedule, shown: RunResult, replay: str) -> str:
    faults = [
        f"  {each}" if isinstance(each, OutsideFailure) else f"  at {each.at}: {each}" for each in shortest.faults
    ]
    started = [f"  from {each.at}: {', '.join(map(repr, each.events))}" for each in shortest.sagas]
    return "\n".join(
        [
            f"seed {schedule.seed} fails: {first.violations[0]}",
            f"replay it: {replay}",
            f"the shortest schedule that still fails has {len(shortest.faults)} of {len(schedule.faults)} faults and "
            f"{len(shortest.sagas)} of {len(schedule.sagas)} sagas",
            "sagas, by the number of the delivery:",
            *started,
            "faults:",
            *(faults or ["  none"]),
            "deliveries:",
            *(f"  {each}" for each in shown.deliveries[:_MOST_LINES]),
            "violations:",
            *(f"  {each}" for each in shown.violations),
            "",
            *shown.stories,
        ]
    )
