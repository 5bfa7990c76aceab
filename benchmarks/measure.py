"""One measurement: a system on empty databases, warmed up, loaded, and checked for what it did."""

from __future__ import annotations

import math
import os
import statistics
from asyncio.subprocess import Process
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.catalogue import System
from benchmarks.counters import Counts
from benchmarks.databases import Meter
from benchmarks.load import Case, Load
from benchmarks.running import Running, Servers, run

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What one measurement found; times in milliseconds, memory in MiB, CPU and database work for each saga.

    - `client_cpu`: the client's own CPU, which is not in `cpu`; not a number where it has no process of its own.
    - `idle`: the unused share of the whole machine's CPU, from 0 to 1.
    """

    system: str
    at_once: int
    refused: float
    sagas_per_second: float
    p50: float
    p95: float
    p99: float
    cpu: float
    client_cpu: float
    idle: float
    peak_memory: float
    statements: float
    commits: float
    violations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The figures of each load, and what was counted during one more, for each saga."""

    figures: Sequence[Statistics]
    counts: Counts | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What the databases, the system's processes and the machine have done up to now; CPU in ticks of the clock."""

    meter: Meter
    used: int
    idle: int
    machine: int


async def measure(
    system: System, servers: Servers, cases: Sequence[Case], *, warm_up: Case, counted: Case | None = None
) -> Measurement:
    """Run a system, put one load after the other on it, and then the one that is counted."""
    async with run(system, servers) as running:
        await running.load(warm_up)
        figures = [await _figures(running, case) for case in cases]
        if not counted or not system.is_counted:
            return Measurement(figures)
        counts = await running.count(counted)
        figures[-1] = replace(figures[-1], violations=(*figures[-1].violations, *await running.violations()))
        return Measurement(figures, counts)


async def _figures(running: Running, case: Case) -> Statistics:
    before = await _read(running)
    load = await running.load(case)
    after = await _read(running)
    memory = peak_memory(running.processes)
    return _statistics(running.system, case, load, before, after, memory, await running.violations())


def _statistics(
    system: System, case: Case, load: Load, before: Reading, after: Reading, memory: float, wrong: Sequence[str]
) -> Statistics:
    cuts = statistics.quantiles(load.latencies, n=100, method="inclusive")
    return Statistics(
        system=system.name,
        at_once=case.at_once,
        refused=case.refused,
        sagas_per_second=load.rate,
        p50=cuts[49] * 1000,
        p95=cuts[94] * 1000,
        p99=cuts[98] * 1000,
        cpu=(after.used - before.used) / _TICKS / load.orders * 1000,
        client_cpu=math.nan if load.cpu is None else load.cpu / load.orders * 1000,
        idle=(after.idle - before.idle) / (after.machine - before.machine),
        peak_memory=memory,
        statements=(after.meter.statements - before.meter.statements) / load.orders,
        commits=(after.meter.commits - before.meter.commits) / load.orders,
        violations=tuple(wrong),
    )


async def _read(running: Running) -> Reading:
    machine = _ticks("/proc/stat")[:8]
    return Reading(
        meter=await running.databases.meter(),
        used=sum(sum(_ticks(f"/proc/{process.pid}/stat")[10:12]) for process in running.processes),
        idle=sum(machine[3:5]),  # a CPU that waits for a disk is idle, too
        machine=sum(machine),
    )


def _ticks(file: str) -> list[int]:
    """Return the numbers in the first line of a file of /proc, after the name that it begins with."""
    line = Path(file).read_text().splitlines()[0].rpartition(")")[2]
    return [int(word) for word in line.split() if word.lstrip("-").isdigit()]


def peak_memory(processes: Sequence[Process]) -> float:
    """Return the sum of the processes' highest memory, in MiB."""
    return sum(_status(process.pid, "VmHWM") for process in processes) / 1024


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def median(figures: Sequence[Statistics]) -> Statistics:
    """Return the medians of several rounds of one case."""
    numbers = {
        name: statistics.median(getattr(each, name) for each in figures)
        for name, value in asdict(figures[0]).items()
        if isinstance(value, float) and name != "refused" and not math.isnan(value)
    }
    return replace(figures[0], violations=tuple(v for each in figures for v in each.violations), **numbers)
