"""One measurement: a system started upon empty databases, warmed up, loaded, and checked for what it did."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import aio_pika
import asyncpg

from benchmarks.client import Client, Load, client
from benchmarks.saga import DEEDS, SERVICES, Deeds, violations
from benchmarks.systems.process import PROFILE, Asked
from tests.conftest import PostgresDatabases
from tests.eventually import eventually
from tests.servers import POSTGRESQL
from toolkit.ids import new_id

#: The benchmark's own PostgreSQL commits durably, and counts statements.
DURABLE_POSTGRESQL = replace(POSTGRESQL, command="postgres -c shared_preload_libraries=pg_stat_statements")

#: Seconds that one order may take before a measurement is given up.
_PATIENCE = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One of those that are compared: its module, and in how many processes it runs."""

    name: str
    module: str
    processes: int = 1


SYSTEMS = (
    System(name="usual stack", module="benchmarks.systems.usual"),
    System(name="by hand", module="benchmarks.systems.by_hand"),
    System(name="toolkit", module="benchmarks.systems.by_toolkit"),
    System(name="toolkit, four processes", module="benchmarks.systems.by_toolkit", processes=4),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A load: so many orders in all, so many at once, and the share of them that is refused on the way."""

    orders: int
    at_once: int
    refused: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one measurement found; times in milliseconds, memory in MiB, CPU and database work for each saga."""

    system: str
    at_once: int
    refused: float
    sagas_per_second: float
    p50: float
    p95: float
    p99: float
    cpu: float
    peak_memory: float
    statements: float
    commits: float
    violations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ground:
    """Where the systems run."""

    broker_url: str
    postgres_url: str
    #: Where the system's processes, one of them at most, leave a profile.
    profile: Path | None = None

    async def measure(self, system: System, cases: Sequence[Case], *, warm_up: Case) -> list[Figures]:
        """Start a system upon databases of its own, and put one load after the other on it."""
        databases = PostgresDatabases(self.postgres_url)
        asked = Asked(
            broker=self.broker_url,
            exchange=f"bench-{new_id()[-12:]}",
            databases={name: await databases.url(name) for name in SERVICES},
        )
        try:
            async with _running(system, asked, self.profile) as pids, client(self.broker_url, asked.exchange) as one:
                done = [await _place(one, warm_up)]
                found = []
                for case in cases:
                    before = await self._meter(asked, pids)
                    done.append(await _place(one, case))
                    after = await self._meter(asked, pids)
                    wrong = await _wrong(asked, done)
                    found.append(_figures(system, case, done[-1], before, after, wrong))
                return found
        finally:
            await self._clean(asked)
            await databases.drop()

    async def _meter(self, asked: Asked, pids: Sequence[int]) -> dict[str, float]:
        """Read what the processes and the databases have used up to now."""
        names = [url.rpartition("/")[2] for url in asked.databases.values()]
        connection = await asyncpg.connect(self.postgres_url)
        try:
            await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            commits = "SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = ANY($1)"
            calls = """
                SELECT sum(calls) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
                WHERE datname = ANY($1) AND query !~* '^(begin|commit|rollback|savepoint|release)'
            """
            return {
                "commits": float(await connection.fetchval(commits, names) or 0),
                "statements": float(await connection.fetchval(calls, names) or 0),
                "cpu": sum(_cpu(pid) for pid in pids),
                "memory": sum(_peak(pid) for pid in pids),
            }
        finally:
            await connection.close()

    async def _clean(self, asked: Asked) -> None:
        connection = await aio_pika.connect(self.broker_url)
        async with connection, connection.channel() as channel:
            for name in SERVICES:
                for queue in (f"{asked.exchange}.{name}", f"{asked.exchange}.{name}.dead"):
                    await channel.queue_delete(queue)
            for exchange in (asked.exchange, f"{asked.exchange}.dead"):
                await channel.exchange_delete(exchange)


@asynccontextmanager
async def _running(system: System, asked: Asked, profile: Path | None) -> AsyncIterator[list[int]]:
    """Run a system, its services dealt out to its processes, and yield the processes' ids."""
    shares = [dict(list(asked.databases.items())[part :: system.processes]) for part in range(system.processes)]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", system.module, replace(asked, databases=share).as_argument(),
            stdout=asyncio.subprocess.PIPE, env=os.environ | ({PROFILE: str(profile)} if profile else {}),
        )
        for share in shares
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            if (await asyncio.wait_for(process.stdout.readline(), 60)).strip() != b"ready":
                raise RuntimeError(f"{system.name} did not start")
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        await asyncio.gather(*(process.wait() for process in processes))


async def _place(one: Client, case: Case) -> Load:
    return await one.place(case.orders, at_once=case.at_once, refused=case.refused, patience=_PATIENCE)


async def _wrong(asked: Asked, loads: Sequence[Load]) -> list[str]:
    """Return what is wrong with the tables once all has come to rest."""
    refused = sum(load.refused for load in loads)
    shipped = sum(load.orders for load in loads) - refused
    wrong: list[str] = []

    async def is_right() -> bool:
        nonlocal wrong
        wrong = violations(
            {name: await _deeds(url) for name, url in asked.databases.items()}, shipped=shipped, refused=refused
        )
        return not wrong

    try:
        await eventually(is_right, within=10)
    except AssertionError:
        return wrong
    return []


async def _deeds(url: str) -> Deeds:
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(DEEDS)
        return Deeds(rows=row["rows"], total=row["total"])
    finally:
        await connection.close()


def _figures(
    system: System, case: Case, load: Load, before: dict[str, float], after: dict[str, float], wrong: Sequence[str]
) -> Figures:
    cuts = statistics.quantiles(load.latencies, n=100)
    each = {name: (after[name] - before[name]) / load.orders for name in before}
    return Figures(
        system=system.name,
        at_once=case.at_once,
        refused=case.refused,
        sagas_per_second=load.rate,
        p50=cuts[49] * 1000,
        p95=cuts[94] * 1000,
        p99=cuts[98] * 1000,
        cpu=each["cpu"] * 1000,
        peak_memory=after["memory"],
        statements=each["statements"],
        commits=each["commits"],
        violations=tuple(wrong),
    )


def _cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS


def _peak(pid: int) -> float:
    """Return the most memory that a process has had, in MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def median(figures: Sequence[Figures]) -> Figures:
    """Return the medians of several rounds of one case."""
    numbers = {
        name: statistics.median(getattr(each, name) for each in figures)
        for name, value in asdict(figures[0]).items()
        if isinstance(value, float) and name != "refused"
    }
    return replace(figures[0], violations=tuple(v for each in figures for v in each.violations), **numbers)
