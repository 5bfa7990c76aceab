"""Kills a process in every cell of the crash matrix by a real SIGKILL, restarts it, and checks the result.

`make crash` runs all of it and writes docs/reports/crash-matrix.md; a part of it by --database and --service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiormq
import asyncpg
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TaskID

from services.events import OrderCreated
from tests.conftest import PostgresDatabases
from tests.end_to_end import crash_report
from tests.end_to_end.cells import EMBEDDED, SLOWNESS, Cell, end_of, matrix
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.placed_orders import SERVICES
from tests.eventually import eventually
from tests.servers import POSTGRESQL, RABBITMQ, find
from toolkit import Settings
from toolkit.client.service_client import LogReader
from toolkit.errors import UnreachableError
from toolkit.ids import new_id
from toolkit.protocol.fence import StepState
from toolkit.protocol.timeline import tell

#: How long the armed process may take to reach its point, in seconds; a busy machine takes long to start Python.
DEATH_WITHIN = 60
#: How long the new process may take to recover, its start included, in seconds.
RIGHT_WITHIN = 30

#: Slow payments hold a saga up for a while; a row of a dead relay becomes due again soon.
ENVIRONMENT = {"PAYMENT_GATEWAY_SLOWNESS": str(SLOWNESS), "SAGA_RELAY_LEASE": "1", "SAGA_LOG_LEVEL": "error"}


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a cell: the seconds from the restart to recovery, or the fault."""

    cell: Cell
    died_after: float | None = None
    right_after: float | None = None
    fault: str | None = None


class CellError(AssertionError):
    """A cell failed; the text names where."""


async def run_on_fleet(cell: Cell, fleet: Fleet) -> Result:
    """Crash at the cell's point while orders run, restart, and wait for recovery."""
    victim, orders = cell.service, cell.orders()
    await fleet.kill(victim)
    if cell.held and not cell.after_payment:
        _signal(fleet, cell.held, signal.SIGSTOP)
    await fleet.place(orders)
    try:
        if cell.died_before_at:
            await _death((await fleet.launch(victim, **_armed(cell, cell.died_before_at))).process)
        began = time.monotonic()
        armed = await fleet.launch(victim, **_armed(cell, cell.point), **cell.settings)
        if cell.held and cell.after_payment:
            await eventually(lambda: _is_being_paid(fleet.clients["payment"], orders[0].order_id), what="a payment")
            _signal(fleet, cell.held, signal.SIGSTOP)
        await _death(armed.process)
    finally:
        fleet.replicas[:] = [each for each in fleet.replicas if each.name != victim]
        if cell.held:
            _signal(fleet, cell.held, signal.SIGCONT)
        restarted = time.monotonic()
        await fleet.launch(victim, **cell.settings)
    await _right(lambda: _faults(fleet, orders))
    return Result(cell, restarted - began, time.monotonic() - restarted)


async def run_embedded(cell: Cell, data_dir: Path) -> Result:
    """Crash the one process of all services at the cell's point, restart it, and wait for recovery."""
    orders = cell.orders()
    file = data_dir / "orders.json"
    file.write_text(json.dumps([order.model_dump(mode="json") for order in orders]))
    fleet = Fleet(Settings(data_dir=data_dir, broker_url=EMBEDDED), sqlite_databases(data_dir))
    if cell.died_before_at:
        await _death(await _embedded(data_dir, file, **_armed(cell, cell.died_before_at)))
    began = time.monotonic()
    armed = await _embedded(data_dir, file, **_armed(cell, cell.point), **cell.settings)
    with ExitStack() as stack:
        if cell.held:
            await eventually(lambda: _is_being_paid(fleet.clients["payment"], orders[0].order_id), what="a payment")
            # A service that can't write stands as still as a stopped one.
            lock = stack.enter_context(closing(sqlite3.connect(data_dir / f"{cell.held}.db", isolation_level=None)))
            lock.execute("BEGIN IMMEDIATE")
        await _death(armed)
    restarted = time.monotonic()
    again = await _embedded(data_dir, file, **cell.settings)
    # It ends by itself, with 0, once all outboxes are empty.
    if code := await asyncio.wait_for(again.wait(), RIGHT_WITHIN):
        raise CellError(f"the process that had been started again ended with {code}")
    result = Result(cell, restarted - began, time.monotonic() - restarted)
    if faults := await _faults(fleet, orders):
        raise CellError(f"not right after the restart: {'; '.join(faults[:5])}")
    await fleet.close()
    return result


@asynccontextmanager
async def open_fleet(database: str, broker_url: str, data_dir: Path, urls: dict[str, str]) -> AsyncIterator[Fleet]:
    """Start the four services for all cells of a database."""
    settings = Settings(broker_url=broker_url, exchange=f"crash-{database}-{new_id()[-12:]}", data_dir=data_dir)
    fleet = Fleet(settings, urls, environment=ENVIRONMENT)
    try:
        for replica in [await fleet.launch(name) for name in SERVICES]:
            await eventually(replica.is_ready, what=f"{replica.name} ready", within=DEATH_WITHIN)
        yield fleet
    finally:
        await fleet.stop()


async def attempt(run: Callable[[], Awaitable[Result]], cell: Cell) -> Result:
    """Run a cell; an error is its result."""
    try:
        return await run()
    except Exception as error:  # noqa: BLE001 -- the other cells run on
        return Result(cell, fault=f"{type(error).__name__}: {error}")


async def _death(process: asyncio.subprocess.Process) -> None:
    """Wait until the process has died of SIGKILL at its point: a point that is not reached proves nothing."""
    try:
        code = await asyncio.wait_for(process.wait(), DEATH_WITHIN)
    except TimeoutError as error:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise CellError(f"the point was not reached within {DEATH_WITHIN} seconds") from error
    if code != -signal.SIGKILL:
        raise CellError(f"the process did not die of SIGKILL; it ended with {code}")


async def _right(faults: Callable[[], Awaitable[list[str]]]) -> None:
    until = time.monotonic() + RIGHT_WITHIN
    while found := await faults():
        if time.monotonic() > until:
            raise CellError(f"not right {RIGHT_WITHIN} seconds after the restart: {'; '.join(found[:5])}")
        await asyncio.sleep(0.1)


async def _faults(fleet: Fleet, orders: Sequence[OrderCreated]) -> list[str]:
    """Return the orders with a wrong end; when there are none, all other violations."""
    notification, wrong = fleet.clients["notification"], []
    for order in orders:
        end = tell(order.order_id, {"notification": await notification.entries(order.order_id)}).state
        if end is not end_of(order):
            wrong.append(f"{order.order_id} should be {end_of(order)}, is {end}")
    return wrong or await fleet.violations()


async def _is_being_paid(payment: LogReader, order: str) -> bool:
    """Whether the payment service has begun to take the money; its file and its tables may not exist yet."""
    try:
        return any(entry.to_state == StepState.EXECUTING for entry in await payment.entries(order))
    except UnreachableError:
        return False


async def _embedded(data_dir: Path, file: Path, **changes: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "tests.end_to_end.embedded_orders", str(data_dir), str(file))
    environment = os.environ | ENVIRONMENT | changes
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.DEVNULL)


def _armed(cell: Cell, point: str) -> dict[str, str]:
    return {"SAGA_CRASH_AT": point, "SAGA_CRASH_ON": cell.direction}


def _signal(fleet: Fleet, name: str, number: signal.Signals) -> None:
    next(each for each in fleet.replicas if each.name == name).process.send_signal(number)


async def run(
    databases: Sequence[str], services: Sequence[str], console: Console
) -> tuple[list[Result], dict[str, str]]:
    """Run the cells of these services, concurrently for each database; return also the servers' versions."""
    wanted = [cell for cell in matrix(tuple(databases)) if cell.service in (*services, EMBEDDED)]
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console) as bar, ExitStack() as servers:
        urls = {kind.what: servers.enter_context(find(kind)).url for kind in (RABBITMQ, POSTGRESQL)}
        tracks = []
        for database in databases:
            cells = [cell for cell in wanted if cell.database == database]
            task = bar.add_task(database, total=len(cells))
            tracks.append(_track(database, cells, urls, partial(_show, bar, task)))
        results = [result for results in await asyncio.gather(*tracks) for result in results]
        return results, {
            "RabbitMQ": await _rabbitmq_version(urls[RABBITMQ.what]),
            "PostgreSQL": await _postgresql_version(urls[POSTGRESQL.what]),
        }


async def _rabbitmq_version(url: str) -> str:
    connection = await aiormq.connect(url)
    number = connection.server_properties["version"]
    await connection.close()
    return number.decode() if isinstance(number, bytes) else str(number)


async def _postgresql_version(url: str) -> str:
    connection = await asyncpg.connect(url)
    number = await connection.fetchval("SHOW server_version")
    await connection.close()
    return str(number).split()[0]


async def _track(
    database: str, cells: Sequence[Cell], urls: dict[str, str], report: Callable[[Result], None]
) -> list[Result]:
    results = []
    async with _opened(database, urls) as run_one:
        for cell in cells:
            result = Result(cell) if cell.unreachable else await attempt(partial(run_one, cell), cell)
            report(result)
            results.append(result)
    return results


@asynccontextmanager
async def _opened(database: str, urls: dict[str, str]) -> AsyncIterator[Callable[[Cell], Awaitable[Result]]]:
    """Yield a function that runs a cell of this database."""
    with tempfile.TemporaryDirectory() as directory:
        if database == EMBEDDED:
            yield lambda cell: run_embedded(cell, Path(tempfile.mkdtemp(dir=directory)))
            return
        postgres = PostgresDatabases(urls[POSTGRESQL.what])
        files = sqlite_databases(Path(directory))
        try:
            databases = files if database == "sqlite" else {name: await postgres.url(name) for name in SERVICES}
            async with open_fleet(database, urls[RABBITMQ.what], Path(directory), databases) as fleet:
                yield lambda cell: run_on_fleet(cell, fleet)
        finally:
            await postgres.drop()


def _show(bar: Progress, task: TaskID, result: Result) -> None:
    bar.advance(task)
    if result.fault:
        bar.console.print(f"✗ {result.cell}: {result.fault}", style="red", markup=False)
    elif not bar.console.is_terminal:
        bar.console.print(f"✓ {result.cell}", markup=False)


def main() -> int:
    """Run the selected cells, write the report, and return 0 if no cell failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    databases = ("sqlite", "postgresql", EMBEDDED)
    parser.add_argument("--database", action="append", choices=databases, help="only this one; repeatable")
    parser.add_argument("--service", action="append", choices=SERVICES, help="only this one; repeatable")
    parser.add_argument("--report", type=Path, help="the report's path, without its suffix")
    options = parser.parse_args()
    console = Console(stderr=True)
    began = datetime.now(UTC)
    results, servers = asyncio.run(run(options.database or databases, options.service or SERVICES, console))
    report = crash_report.Report.of(results, began=began, took=datetime.now(UTC) - began, servers=servers)
    if options.report:
        report.write(options.report)
    console.print(report.summary(), markup=False)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
