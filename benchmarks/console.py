"""The console's response times: its requests to four services with 100,000 sagas over HTTP.

Each request goes to all four in parallel, as the console sends it, and takes as long as the slowest response.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.sample_orders import LONGEST, SERVICES, SampleOrders, Tables, fill, tables_of
from tests.conftest import PostgresDatabases
from tests.servers import POSTGRESQL, find
from toolkit.client.http_client import HttpClient
from toolkit.declaration.events import SagaState
from toolkit.operations.attention import Attention
from toolkit.operations.search import Search

#: The most that 19 of 20 responses may take, in milliseconds.
SEARCH, LIST, SAGA, OVERVIEW = 200, 300, 500, 300
#: Longer than the console caches an overview, so that each is a fresh one.
_PAUSE = 0.5

Request = Callable[[HttpClient], Awaitable[object]]


@dataclass(slots=True)
class Timing:
    """A request, its limit, and its times, in milliseconds."""

    what: str
    limit: int
    database: str
    took: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        """Half of the responses took no longer."""
        return self._share(0.5)

    @property
    def p95(self) -> float:
        """19 of 20 responses took no longer."""
        return self._share(0.95)

    @property
    def is_met(self) -> bool:
        """Whether the limit is kept."""
        return self.p95 <= self.limit

    def _share(self, share: float) -> float:
        return sorted(self.took)[max(round(share * len(self.took) + 0.499) - 1, 0)]


def main() -> int:
    """Return 0 if each limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, help="the directory to write console.md and console.json to")
    parser.add_argument("--sagas", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=20, help="how often each request is sent")
    arguments = parser.parse_args()
    found = asyncio.run(_measure(arguments.sagas, arguments.rounds))
    _show(found)
    if arguments.report:
        _write(found, arguments.sagas, arguments.report)
    return 0 if all(each.is_met for each in found) else 1


async def _measure(sagas: int, rounds: int) -> list[Timing]:
    orders = SampleOrders(sagas, datetime.now(UTC))
    tables = {service: tables_of(orders, service) for service in SERVICES}
    events = _events(tables["payment"])
    found: list[Timing] = []
    with ExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory())
        server = stack.enter_context(find(POSTGRESQL))
        databases = PostgresDatabases(server.url)
        try:
            for name in ("SQLite", "PostgreSQL"):
                urls = {
                    service: f"sqlite:///{directory}/{service}.db" if name == "SQLite" else await databases.url(service)
                    for service in SERVICES
                }
                for service, url in urls.items():
                    await fill(url, tables[service])
                async with _served(urls) as clients:
                    found += [each async for each in _timings(name, clients, orders, events, rounds)]
        finally:
            await databases.drop()
    return found


async def _timings(
    database: str, clients: list[HttpClient], orders: SampleOrders, events: list[str], rounds: int
) -> AsyncIterator[Timing]:
    """Yield each request with its times."""
    dice = random.Random(7)
    first = Timing("overview, the first after a start: all sagas are counted", 5_000, database)
    await _send(first, clients, lambda each: each.snapshot())
    yield first
    for what, limit, request in _requests(orders, events, dice):
        timing = Timing(what, limit, database)
        for _ in range(rounds):
            put = request()
            if limit == OVERVIEW and what == "overview":
                await asyncio.sleep(_PAUSE)
            await _send(timing, clients, put)
        yield timing


def _requests(
    orders: SampleOrders, events: list[str], dice: random.Random
) -> Iterator[tuple[str, int, Callable[[], Request]]]:
    """Yield each request's name and limit, and what makes a new one for each round."""

    def search(which: Search, cursor: str | None = None) -> Request:
        return lambda each: each.search(which, cursor=cursor)

    order, event = (lambda: orders.id_of(dice.randrange(orders.number))), (lambda: dice.choice(events))
    yield "search by an order's id", SEARCH, lambda: search(Search(q=order()))
    yield "search by an event's id", SEARCH, lambda: search(Search(q=event()))
    yield "search by an unknown id", SEARCH, lambda: search(Search(q=f"order-{dice.random()}"))
    lists = {"all": Search(), "step": Search(step="process_payment"), "type": Search(type="order")}
    lists |= {f"state {state}": Search(state=state) for state in SagaState}
    lists |= {f"attention {each}": Search(attention=each) for each in Attention}
    lists |= {"older than 1 h": Search(older_than=timedelta(hours=1))}
    lists |= {"Pending, older than 1 h": Search(state=SagaState.PENDING, older_than=timedelta(hours=1))}
    for name, which in lists.items():
        yield f"list: {name}", LIST, lambda which=which: search(which)
    yield "list: any page of all", LIST, lambda: search(Search(), str(dice.randrange(1_000, 2 * orders.number)))
    yield (
        "list: any page of Failed",
        LIST,
        lambda: search(Search(state=SagaState.FAILED), str(dice.randrange(1_000, 2 * orders.number))),
    )
    yield "one order", SAGA, lambda: (lambda saga_id: lambda each: each.saga(saga_id))(order())
    yield "an order of 200 entries", SAGA, lambda: lambda each: each.saga(LONGEST)
    yield "overview", OVERVIEW, lambda: lambda each: each.snapshot()


async def _send(timing: Timing, clients: list[HttpClient], request: Request) -> None:
    began = time.perf_counter()
    await asyncio.gather(*(request(each) for each in clients))
    timing.took.append((time.perf_counter() - began) * 1000)


def _events(payment: Tables) -> list[str]:
    """Return some of the events that payment consumed or emitted, from its whole log."""
    columns, rows = payment["saga_log"]
    places = [columns.index(name) for name in ("event_id", "emitted_id")]
    found = [row[place] for row in random.Random(1).sample(rows, 1_000) for place in places if row[place]]
    return [each for each in found if each[14] == "7"]


@asynccontextmanager
async def _served(urls: dict[str, str]) -> AsyncIterator[list[HttpClient]]:
    """Serve each database's API in a process of its own."""
    async with AsyncExitStack() as stack:
        clients = []
        for service, url in urls.items():
            port = stack.enter_context(_process(service, url))
            clients.append(HttpClient(service, f"http://127.0.0.1:{port}", token=None))
            stack.push_async_callback(clients[-1].close)
        yield clients


@contextmanager
def _process(service: str, url: str) -> Iterator[int]:
    with Popen([sys.executable, "-m", "benchmarks.served", service, url], stdout=PIPE, text=True) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def _pairs(found: list[Timing]) -> list[tuple[Timing, Timing]]:
    """Return the figures of both databases side by side."""
    half = len(found) // 2
    return list(zip(found[:half], found[half:], strict=True))


def _show(found: list[Timing]) -> None:
    table = Table("request", "limit ms", "SQLite p50", "p95", "PostgreSQL p50", "p95", "")
    for one, other in _pairs(found):
        figures = [f"{each:.0f}" for each in (one.p50, one.p95, other.p50, other.p95)]
        table.add_row(one.what, str(one.limit), *figures, "✓" if one.is_met and other.is_met else "✗")
    Console(width=110).print(table)


def _write(found: list[Timing], sagas: int, directory: Path) -> None:
    rows = [
        f"| {one.what} | {one.limit} | {one.p50:.0f} | {one.p95:.0f} | {other.p50:.0f} | {other.p95:.0f} "
        f"| {'yes' if one.is_met and other.is_met else '**no**'} |"
        for one, other in _pairs(found)
    ]
    facts = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "sagas": sagas,
        "cores": os.cpu_count(),
        "load": [round(each, 1) for each in os.getloadavg()],
        "python": platform.python_version(),
    }
    (directory / "console.json").write_text(
        json.dumps(facts | {"figures": [asdict(each) | {"p50": each.p50, "p95": each.p95} for each in found]}, indent=1)
        + "\n"
    )
    (directory / "console.md").write_text(_PAGE.format(rows="\n".join(rows), **facts))


_PAGE = """# The console's response times

Written by `make bench-console`, {at}, on {cores} cores with Python {python}. The machine's load average was {load} at
the end.

{sagas:,} orders over the last hours, in four services: most fulfilled, a tenth refused and compensated, some in
progress, a few stuck; 190,000 to 300,000 log entries in each service. Each service's API is a process of its own, and
each request goes to all four in parallel, as in the console; it takes as long as the slowest. Milliseconds.

| request | p95 at most | SQLite p50 | p95 | PostgreSQL p50 | p95 | in time |
|---|---|---|---|---|---|---|
{rows}

Where few sagas match, a page is returned after a tenth of a second with the matches so far, and with the cursor to
continue; the figures are of one page. Overviews are half a second apart, so that none comes from a cache. The first
overview counts all sagas; each later one reads only the entries since the last.
"""


if __name__ == "__main__":
    sys.exit(main())
