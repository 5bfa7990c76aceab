"""Runs the systems that are measured, each in processes of its own, and the client beside them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import aio_pika

from benchmarks.catalogue import System
from benchmarks.counters import COUNTS, Counts
from benchmarks.databases import Databases, OnFiles, OnPostgres
from benchmarks.load import Case, Load
from benchmarks.saga import violations
from benchmarks.systems.process import PROFILE, Assignment
from tests.eventually import eventually
from toolkit.ids import new_id

#: Seconds for the start of a system; under valgrind it takes fifty times as long as alone.
_START = 300.0
#: The most characters of a line: a load's latencies.
_LONGEST_LINE = 2**24


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers that all systems of a run share."""

    broker: str
    postgres: str
    #: The file for a profile of the system's only process.
    profile: Path | None = None
    #: A command that runs the system's processes, valgrind for example.
    under: tuple[str, ...] = ()


@dataclass(slots=True)
class Running:
    """A system that runs, its databases, and the loads that it has had; `again` starts more of its processes."""

    system: System
    databases: Databases
    processes: Sequence[Process]
    place: Callable[[Case], Awaitable[Load]]
    loads: list[Load]
    counts: Sequence[Path]
    again: Callable[[], AbstractAsyncContextManager[Sequence[Process]]]

    async def load(self, case: Case) -> Load:
        """Place a load, and wait for its end."""
        self.loads.append(await self.place(case))
        return self.loads[-1]

    async def violations(self) -> list[str]:
        """Return what is wrong with the services' tables once the system is at rest."""
        refused = sum(load.refused for load in self.loads)
        shipped = sum(load.orders for load in self.loads) - refused
        wrong: list[str] = []

        async def is_right() -> bool:
            nonlocal wrong
            wrong = violations(await self.databases.effects(), shipped=shipped, refused=refused)
            return not wrong

        try:
            await eventually(is_right, within=10)
        except AssertionError:
            return [f"{self.system.name}: {each}" for each in wrong]
        return []

    async def count(self, case: Case) -> Counts:
        """Place a load, and return what the system did for each of its sagas."""
        for file in self.counts:
            file.unlink(missing_ok=True)
        self._switch_counters()
        load = await self.load(case)
        self._switch_counters()

        async def are_written() -> bool:
            return all(file.exists() for file in self.counts)

        await eventually(are_written, within=10)
        return sum((Counts.read(file) for file in self.counts), Counts()).each(load.orders)

    def _switch_counters(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGUSR1)


@asynccontextmanager
async def run(system: System, servers: Servers) -> AsyncIterator[Running]:
    """Run a system on empty databases, and remove all that it has made on the servers."""
    databases: Databases = OnFiles() if system.on_files else OnPostgres(servers.postgres)
    assignment = Assignment(
        broker=servers.broker,
        exchange=f"bench-{new_id()[-12:]}",
        databases=await databases.urls(),
        queues=system.queues,
    )
    try:
        async with AsyncExitStack() as stack:
            counts = Path(stack.enter_context(TemporaryDirectory()))
            processes = await stack.enter_async_context(started(system, assignment, servers, counts))
            client = processes[0] if system.embedded else await stack.enter_async_context(_client(assignment))
            if system.old_entries and isinstance(databases, OnPostgres):
                await databases.age(system.old_entries)
            files = [counts / str(number) for number in range(len(processes))]
            again = partial(started, system, assignment, servers)
            yield Running(system, databases, processes, _placing(client), [], files, again)
    finally:
        await remove(assignment)
        await databases.drop()


@asynccontextmanager
async def started(
    system: System, assignment: Assignment, servers: Servers, counts: Path | None = None
) -> AsyncIterator[Sequence[Process]]:
    """Start a system's processes, and stop them at the end."""
    processes = [
        await asyncio.create_subprocess_exec(
            *servers.under, sys.executable, "-m", system.module, part.as_argument(), stdin=PIPE, stdout=PIPE,
            limit=_LONGEST_LINE,
            env=os.environ
            | ({PROFILE: str(servers.profile)} if servers.profile else {})
            | ({COUNTS: str(counts / str(number))} if counts else {}),
        )
        for number, part in enumerate(_parts(system, assignment))
    ]  # fmt: skip
    try:
        for process in processes:
            await _until_ready(process, system.name)
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        await asyncio.gather(*(process.wait() for process in processes))


def _parts(system: System, assignment: Assignment) -> Iterator[Assignment]:
    """Yield what each process has to do."""
    for number in range(system.processes):
        mine = list(assignment.databases.items())
        yield replace(assignment, databases=dict(mine if system.replicas else mine[number :: system.processes]))


@asynccontextmanager
async def _client(assignment: Assignment) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.client", assignment.broker, assignment.exchange,
        stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE,
    )  # fmt: skip
    try:
        await _until_ready(process, "the client")
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def _placing(client: Process) -> Callable[[Case], Awaitable[Load]]:
    """Return what has a process place a load."""

    async def place(case: Case) -> Load:
        assert client.stdin is not None
        client.stdin.write(json.dumps(asdict(case)).encode() + b"\n")
        if not (line := await _line(client)):
            raise RuntimeError("the client ended before its load")
        return Load(**json.loads(line))

    return place


async def _until_ready(process: Process, name: str) -> None:
    if (await asyncio.wait_for(_line(process), _START)).strip() != b"ready":
        raise RuntimeError(f"{name} did not start")


async def _line(process: Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.readline()


async def remove(assignment: Assignment, *further: str) -> None:
    """Delete the queues and exchanges of a system, and further queues."""
    connection = await aio_pika.connect(assignment.broker)
    async with connection, connection.channel() as channel:
        for queue in further:
            await channel.queue_delete(queue)
        for name in assignment.databases:
            for queue in (f"{assignment.exchange}.{name}", f"{assignment.exchange}.{name}.dead"):
                await channel.queue_delete(queue)
            await channel.exchange_delete(f"{assignment.exchange}.{name}")
        for exchange in (assignment.exchange, f"{assignment.exchange}.dead"):
            await channel.exchange_delete(exchange)
