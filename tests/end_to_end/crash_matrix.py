"""Kills a process in every cell of the crash matrix by a real SIGKILL, restarts it, and checks the result.

`make crash` runs all of it: the orders into docs/reports/crash-matrix.md, the other shapes of sagas into
docs/reports/crash-matrix-shapes.md. --database, --service, --shape and --point select a part of it.
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

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TaskID

from tests.conftest import PostgresDatabases
from tests.end_to_end import crash_report
from tests.end_to_end.cells import EMBEDDED, Cell, cells_of
from tests.end_to_end.crash_shapes import ORDERS, PATHS, Placed, Shape
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.server_versions import postgresql_version, rabbitmq_version
from tests.eventually import eventually
from tests.servers import POSTGRESQL, RABBITMQ, find
from toolkit import Settings
from toolkit.client.service_client import LogReader
from toolkit.errors import UnreachableError
from toolkit.failpoints import POINTS
from toolkit.ids import new_id
from toolkit.protocol.fence import StepState
from toolkit.protocol.timeline import tell

#: How long a process may take to start, to reach its point, or to recover, in seconds: it only bounds the wait for an
#: event, so a busy machine may be given much more.
PATIENCE = float(os.environ.get("CRASH_PATIENCE", "60"))

#: A row of a dead relay becomes due again soon.
ENVIRONMENT = {"SAGA_RELAY_LEASE": "1", "SAGA_LOG_LEVEL": "error"}


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
    """Crash at the cell's point while its sagas run, restart, and wait for recovery."""
    victim, placed = cell.service, cell.sagas()
    await fleet.kill(victim)
    if cell.held and not cell.after_payment:
        send_signal(fleet, cell.held, signal.SIGSTOP)
    for saga in placed:
        await fleet.place(saga.events, saga_id=saga.saga_id)
    try:
        if cell.died_before_at:
            armed = _armed(cell, cell.died_before_at) | cell.settings
            await _death((await fleet.launch(victim, **armed)).process)
        began = time.monotonic()
        armed = await fleet.launch(victim, **_armed(cell, cell.point), **cell.settings)
        if cell.held and cell.after_payment:
            await eventually(lambda: _is_being_paid(fleet.clients["payment"], placed[0].saga_id), what="a payment")
            send_signal(fleet, cell.held, signal.SIGSTOP)
        await _death(armed.process)
    finally:
        fleet.replicas[:] = [each for each in fleet.replicas if each.name != victim]
        if cell.held:
            send_signal(fleet, cell.held, signal.SIGCONT)
        restarted = time.monotonic()
        await fleet.launch(victim, **cell.settings)
    for saga in placed:
        await fleet.place(saga.later, saga_id=saga.saga_id)
    await becomes_right(fleet, cell.shape, placed)
    return Result(cell, restarted - began, time.monotonic() - restarted)


async def run_embedded(cell: Cell, data_dir: Path) -> Result:
    """Crash the one process of all services at the cell's point, restart it, and wait for recovery."""
    placed = cell.sagas()
    orders = [order for saga in placed for order in saga.events]
    file = data_dir / "orders.json"
    file.write_text(json.dumps([order.model_dump(mode="json") for order in orders]))
    fleet = Fleet(Settings(data_dir=data_dir, broker_url=EMBEDDED), sqlite_databases(data_dir))
    if cell.died_before_at:
        await _death(await _embedded(data_dir, file, **_armed(cell, cell.died_before_at)))
    began = time.monotonic()
    armed = await _embedded(data_dir, file, **_armed(cell, cell.point), **cell.settings)
    with ExitStack() as stack:
        if cell.held:
            await eventually(lambda: _is_being_paid(fleet.clients["payment"], placed[0].saga_id), what="a payment")
            # A service that can't write stands as still as a stopped one.
            lock = stack.enter_context(closing(sqlite3.connect(data_dir / f"{cell.held}.db", isolation_level=None)))
            lock.execute("BEGIN IMMEDIATE")
        await _death(armed)
    restarted = time.monotonic()
    again = await _embedded(data_dir, file, **cell.settings)
    # It ends by itself, with 0, once all outboxes are empty.
    if code := await asyncio.wait_for(again.wait(), PATIENCE):
        raise CellError(f"the process that had been started again ended with {code}")
    result = Result(cell, restarted - began, time.monotonic() - restarted)
    if faults := await _faults(fleet, cell.shape, placed):
        raise CellError(f"not right after the restart: {'; '.join(faults[:5])}")
    await fleet.close()
    return result


@asynccontextmanager
async def open_fleet(
    database: str, broker_url: str, data_dir: Path, urls: dict[str, str], *, shape: Shape = ORDERS
) -> AsyncIterator[Fleet]:
    """Start the services for all cells of a shape and a database."""
    settings = Settings(broker_url=broker_url, exchange=f"crash-{database}-{new_id()[-12:]}", data_dir=data_dir)
    environment = ENVIRONMENT | dict(shape.environment)
    fleet = Fleet(settings, urls, environment=environment, references=shape.services, checks=shape.checks)
    try:
        for replica in [await fleet.launch(name) for name in shape.services]:
            await eventually(replica.is_ready, what=f"{replica.name} ready", within=PATIENCE)
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
        code = await asyncio.wait_for(process.wait(), PATIENCE)
    except TimeoutError as error:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise CellError(f"the point was not reached within {PATIENCE:.0f} seconds") from error
    if code != -signal.SIGKILL:
        raise CellError(f"the process did not die of SIGKILL; it ended with {code}")


async def becomes_right(fleet: Fleet, shape: Shape, placed: Sequence[Placed]) -> None:
    """Wait until each saga has its expected end, and nothing is wrong."""
    until = time.monotonic() + PATIENCE
    while found := await _faults(fleet, shape, placed):
        if time.monotonic() > until:
            raise CellError(f"not right {PATIENCE:.0f} seconds after the restart: {'; '.join(found[:5])}")
        await asyncio.sleep(0.1)


async def _faults(fleet: Fleet, shape: Shape, placed: Sequence[Placed]) -> list[str]:
    """Return the sagas with a wrong end; when there are none, all other violations."""
    wrong = []
    for saga in placed:
        end = tell(
            saga.saga_id, {name: await fleet.clients[name].entries(saga.saga_id) for name in shape.ends_at}
        ).state
        if end is not saga.end:
            wrong.append(f"{saga.saga_id} should be {saga.end}, is {end}")
    return wrong or await fleet.violations()


async def _is_being_paid(payment: LogReader, order: str) -> bool:
    """Whether the payment service has begun to take the money; its file and its tables may not exist yet."""
    try:
        return any(entry.to_state == StepState.EXECUTING for entry in await payment.entries(order))
    except UnreachableError:
        return False


async def _embedded(data_dir: Path, file: Path, **changes: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "tests.end_to_end.embedded_orders", str(data_dir), str(file))
    environment = os.environ | ENVIRONMENT | dict(ORDERS.environment) | changes
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.DEVNULL)


def _armed(cell: Cell, point: str) -> dict[str, str]:
    return {"SAGA_CRASH_AT": point, "SAGA_CRASH_ON": cell.direction}


def send_signal(fleet: Fleet, name: str, number: signal.Signals) -> None:
    """Send a signal to a service's oldest process."""
    next(each for each in fleet.replicas if each.name == name).process.send_signal(number)


async def run(cells: Sequence[Cell], console: Console) -> tuple[list[Result], dict[str, str]]:
    """Run these cells, concurrently for each shape and database; return also the servers' versions."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console) as bar, ExitStack() as servers:
        # The trips' reservation system is one for all tracks, as its checks read it in this process.
        directory = servers.enter_context(tempfile.TemporaryDirectory())
        os.environ.setdefault("RESERVATIONS_URL", f"sqlite:///{directory}/reservations.db")
        urls = {kind.what: servers.enter_context(find(kind)).url for kind in (RABBITMQ, POSTGRESQL)}
        tracks = []
        for shape, database in dict.fromkeys((cell.shape.name, cell.database) for cell in cells):
            of = [cell for cell in cells if (cell.shape.name, cell.database) == (shape, database)]
            task = bar.add_task(f"{shape}, {database}", total=len(of))
            tracks.append(_track(of, urls, partial(_show, bar, task)))
        results = [result for results in await asyncio.gather(*tracks) for result in results]
        return results, {
            "RabbitMQ": await rabbitmq_version(urls[RABBITMQ.what]),
            "PostgreSQL": await postgresql_version(urls[POSTGRESQL.what]),
        }


async def _track(cells: Sequence[Cell], urls: dict[str, str], report: Callable[[Result], None]) -> list[Result]:
    """Run cells of one shape and one database, one after the other."""
    results: list[Result] = []
    try:
        async with _opened(cells[0].shape, cells[0].database, urls) as run_one:
            for cell in cells:
                result = Result(cell) if cell.unreachable else await attempt(partial(run_one, cell), cell)
                report(result)
                results.append(result)
    except AssertionError as error:  # its services did not start; the other tracks run on
        why = f"not run: {error}"
        lost = [Result(cell, fault=None if cell.unreachable else why) for cell in cells[len(results) :]]
        for result in lost:
            report(result)
        results += lost
    return results


@asynccontextmanager
async def _opened(
    shape: Shape, database: str, urls: dict[str, str]
) -> AsyncIterator[Callable[[Cell], Awaitable[Result]]]:
    """Yield a function that runs a cell of this shape and this database."""
    with tempfile.TemporaryDirectory() as directory:
        if database == EMBEDDED:
            yield lambda cell: run_embedded(cell, Path(tempfile.mkdtemp(dir=directory)))
            return
        postgres = PostgresDatabases(urls[POSTGRESQL.what])
        files = sqlite_databases(Path(directory), shape.services)
        try:
            databases = files if database == "sqlite" else {name: await postgres.url(name) for name in files}
            broker = urls[RABBITMQ.what]
            async with open_fleet(database, broker, Path(directory), databases, shape=shape) as fleet:
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
    shapes = (ORDERS.name, *PATHS)
    parser.add_argument("--database", action="append", choices=databases, help="only this one; repeatable")
    parser.add_argument("--service", action="append", help="only the death of this one; repeatable")
    parser.add_argument("--shape", action="append", choices=shapes, help="only this shape of sagas; repeatable")
    parser.add_argument("--point", action="append", choices=POINTS, help="only this point; repeatable")
    parser.add_argument("--report", type=Path, help="the report's path, without its suffix")
    options = parser.parse_args()
    console = Console(stderr=True)
    began = datetime.now(UTC)
    wanted = [
        cell
        for cell in cells_of(options.shape or shapes, options.database or databases)
        if cell.service in (*(options.service or [cell.service]), EMBEDDED) and cell.point in (options.point or POINTS)
    ]
    results, servers = asyncio.run(run(wanted, console))
    report = crash_report.Report.of(results, began=began, took=datetime.now(UTC) - began, servers=servers)
    if options.report:
        report.write(options.report)
    console.print(report.summary(), markup=False)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
