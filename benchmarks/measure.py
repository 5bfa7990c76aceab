"""One measurement: a system started upon empty databases, warmed up, loaded, and checked for what it did."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import statistics
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import aio_pika

from benchmarks.databases import Databases, Meter, OnFiles, OnPostgres
from benchmarks.load import Case, Load
from benchmarks.saga import SERVICES, violations
from benchmarks.systems.process import PROFILE, Asked
from tests.eventually import eventually
from toolkit.ids import new_id

#: Seconds for the start of a system; under valgrind it takes fifty times as long as alone.
_START = 300.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One of those that are compared.

    - `processes`: over how many its services are dealt out.
    - `on_files`: on SQLite, and not on PostgreSQL.
    - `embedded`: its process is its own client.
    - `old_entries`: how many entries stand in its logs before, on PostgreSQL.
    - `share`: it is given this part of each load's orders only, since it would take the most of the time otherwise.
    - `at_once`: the loads that it is given; all by default.
    """

    name: str
    module: str
    processes: int = 1
    on_files: bool = False
    embedded: bool = False
    queues: str = "quorum"
    old_entries: int = 0
    share: float = 1.0
    at_once: tuple[int, ...] = ()


TOOLKIT, BY_HAND = "benchmarks.systems.by_toolkit", "benchmarks.systems.by_hand"
SYSTEMS = (
    System(name="usual stack", module="benchmarks.systems.usual", share=0.2),
    System(name="by hand", module=f"{BY_HAND}.on_postgresql"),
    System(name="by hand, frames as bytes", module=f"{BY_HAND}.with_frames_as_bytes"),
    System(name="by hand, SQLModel row", module=f"{BY_HAND}.with_sqlmodel_rows"),
    System(name="by hand, a statement a table", module=f"{BY_HAND}.statement_a_table"),
    System(name="by hand, SQLite", module=f"{BY_HAND}.on_sqlite", on_files=True),
    System(name="by hand, embedded", module=f"{BY_HAND}.embedded", on_files=True, embedded=True),
    System(name="toolkit", module=TOOLKIT),
    System(name="toolkit, SQLite", module=TOOLKIT, on_files=True),
    System(name="toolkit, embedded", module="benchmarks.systems.embedded", on_files=True, embedded=True),
    System(name="toolkit, four processes", module=TOOLKIT, processes=4, at_once=(100, 1000)),
    System(name="toolkit, 1,000,000 old entries", module=TOOLKIT, old_entries=1_000_000, at_once=(1, 100)),
    System(name="toolkit, external payment", module="benchmarks.systems.external", at_once=(1, 100)),
    System(name="DBOS", module="benchmarks.systems.by_dbos", share=0.2),
    System(name="by hand, classic queues", module=f"{BY_HAND}.on_postgresql", queues="classic", at_once=(100,)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What one measurement found; times in milliseconds, memory in MiB, CPU and database work for each saga.

    - `client_cpu`: the client's own CPU, which `cpu` has not; not a number where it has no process of its own.
    - `idle`: the share of the whole machine's CPU that nobody used, from 0 to 1.
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
class Reading:
    """What the databases, the system's processes and the machine have done up to now; CPU in ticks of the clock."""

    meter: Meter
    used: int
    idle: int
    machine: int


Place = Callable[[Case], Awaitable[Load]]


@dataclass(frozen=True, slots=True)
class Ground:
    """Where the systems run."""

    broker_url: str
    postgres_url: str
    #: The file for a profile of the system's process, of which there is one at most.
    profile: Path | None = None
    #: A command that runs the system's processes, valgrind for example.
    under: tuple[str, ...] = ()

    async def measure(self, system: System, cases: Sequence[Case], *, warm_up: Case) -> list[Statistics]:
        """Start a system upon databases of its own, and put one load after the other on it."""
        databases: Databases = OnFiles() if system.on_files else OnPostgres(self.postgres_url)
        asked = Asked(
            broker=self.broker_url,
            exchange=f"bench-{new_id()[-12:]}",
            databases=await databases.urls(),
            queues=system.queues,
        )
        try:
            async with _running(system, asked, self) as processes, _placing(processes, system, asked) as place:
                if system.old_entries and isinstance(databases, OnPostgres):
                    await databases.age(system.old_entries)
                done = [await place(warm_up)]
                found = []
                for case in cases:
                    before = await _read(databases, processes)
                    done.append(await place(case))
                    after = await _read(databases, processes)
                    wrong = await _wrong(databases, done)
                    found.append(_statistics(system, case, done[-1], before, after, _peak(processes), wrong))
                return found
        finally:
            await self._clean(asked)
            await databases.drop()

    async def _clean(self, asked: Asked) -> None:
        connection = await aio_pika.connect(self.broker_url)
        async with connection, connection.channel() as channel:
            for name in SERVICES:
                for queue in (f"{asked.exchange}.{name}", f"{asked.exchange}.{name}.dead"):
                    await channel.queue_delete(queue)
                await channel.exchange_delete(f"{asked.exchange}.{name}")
            for exchange in (asked.exchange, f"{asked.exchange}.dead"):
                await channel.exchange_delete(exchange)


@asynccontextmanager
async def _running(system: System, asked: Asked, ground: Ground) -> AsyncIterator[list[Process]]:
    """Run a system, its services dealt out to its processes."""
    shares = [dict(list(asked.databases.items())[part :: system.processes]) for part in range(system.processes)]
    processes = [
        await asyncio.create_subprocess_exec(
            *ground.under, sys.executable, "-m", system.module, replace(asked, databases=share).as_argument(),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24,
            env=os.environ | ({PROFILE: str(ground.profile)} if ground.profile else {}),
        )
        for share in shares
    ]  # fmt: skip
    try:
        for process in processes:
            if (await asyncio.wait_for(_line(process), _START)).strip() != b"ready":
                raise RuntimeError(f"{system.name} did not start")
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        await asyncio.gather(*(process.wait() for process in processes))


@asynccontextmanager
async def _placing(processes: Sequence[Process], system: System, asked: Asked) -> AsyncIterator[Place]:
    """Yield what puts a load on a system: its own process if it is its own client, or a client's process."""
    async with AsyncExitStack() as stack:
        placing = processes[0]
        if not system.embedded:
            placing = await stack.enter_async_context(_client(asked))

        async def place(case: Case) -> Load:
            assert placing.stdin is not None
            placing.stdin.write(json.dumps(asdict(case)).encode() + b"\n")
            if not (line := await _line(placing)):
                raise RuntimeError(f"the client of {system.name} has ended")
            return Load(**json.loads(line))

        yield place


@asynccontextmanager
async def _client(asked: Asked) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.client", asked.broker, asked.exchange,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24,
    )  # fmt: skip
    try:
        if (await _line(process)).strip() != b"ready":
            raise RuntimeError("the client did not start")
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _line(process: Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.readline()


async def _wrong(databases: Databases, loads: Sequence[Load]) -> list[str]:
    """Return what is wrong with the tables once all has come to rest."""
    refused = sum(load.refused for load in loads)
    shipped = sum(load.orders for load in loads) - refused
    wrong: list[str] = []

    async def is_right() -> bool:
        nonlocal wrong
        wrong = violations(await databases.deeds(), shipped=shipped, refused=refused)
        return not wrong

    try:
        await eventually(is_right, within=10)
    except AssertionError:
        return wrong
    return []


def _statistics(
    system: System,
    case: Case,
    load: Load,
    before: Reading,
    after: Reading,
    memory: float,
    wrong: Sequence[str],
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


async def _read(databases: Databases, processes: Sequence[Process]) -> Reading:
    machine = _ticks("/proc/stat")[:8]
    return Reading(
        meter=await databases.meter(),
        used=sum(sum(_ticks(f"/proc/{process.pid}/stat")[10:12]) for process in processes),
        idle=sum(machine[3:5]),  # to wait for a disk is to be idle too
        machine=sum(machine),
    )


def _ticks(file: str) -> list[int]:
    """Return the numbers of such a file's first line, behind the names that it begins with."""
    line = Path(file).read_text().splitlines()[0].rpartition(")")[2]
    return [int(word) for word in line.split() if word.lstrip("-").isdigit()]


def _peak(processes: Sequence[Process]) -> float:
    """Return the most memory that processes have had together, in MiB."""
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
