"""How long an operator waits: what the console asks of four services with 100,000 sagas over HTTP.

Each question is put to all four at once, as the console puts it, and takes as long as the slowest answer.
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

from benchmarks.crowd import LONGEST, SERVICES, Crowd, Tables, fill, tables_of
from tests.conftest import PostgresDatabases
from tests.servers import POSTGRESQL, find
from toolkit.client.http_client import HttpClient
from toolkit.declaration.events import SagaState
from toolkit.operations.attention import Attention
from toolkit.operations.search import Search

#: The most that 19 of 20 answers may take, in milliseconds.
SEARCH, LIST, SAGA, OVERVIEW = 200, 300, 500, 300
#: Longer than an answer is given again unasked: each glance is a new one.
_PAUSE = 0.5

Question = Callable[[HttpClient], Awaitable[object]]


@dataclass(slots=True)
class Asked:
    """A question, how long it may take, and how long it took each time, in milliseconds."""

    what: str
    limit: int
    database: str
    took: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        """Half of the answers took no longer."""
        return self._share(0.5)

    @property
    def p95(self) -> float:
        """19 of 20 answers took no longer."""
        return self._share(0.95)

    @property
    def is_met(self) -> bool:
        """Whether it took no longer than it may."""
        return self.p95 <= self.limit

    def _share(self, share: float) -> float:
        return sorted(self.took)[max(round(share * len(self.took) + 0.499) - 1, 0)]


def main() -> int:
    """Return 0 if every answer came in time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, help="the directory to write console.md and console.json to")
    parser.add_argument("--sagas", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=20, help="how often each question is put")
    asked = parser.parse_args()
    found = asyncio.run(_measure(asked.sagas, asked.rounds))
    _show(found)
    if asked.report:
        _write(found, asked.sagas, asked.report)
    return 0 if all(each.is_met for each in found) else 1


async def _measure(sagas: int, rounds: int) -> list[Asked]:
    crowd = Crowd(sagas, datetime.now(UTC))
    tables = {service: tables_of(crowd, service) for service in SERVICES}
    events = _events(tables["payment"])
    found: list[Asked] = []
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
                    found += [each async for each in _asked(name, clients, crowd, events, rounds)]
        finally:
            await databases.drop()
    return found


async def _asked(
    database: str, clients: list[HttpClient], crowd: Crowd, events: list[str], rounds: int
) -> AsyncIterator[Asked]:
    """Yield each question with its figures."""
    dice = random.Random(7)
    first = Asked("overview, the first after a start: all sagas are counted", 5_000, database)
    await _put(first, clients, lambda each: each.snapshot())
    yield first
    for what, limit, question in _questions(crowd, events, dice):
        asked = Asked(what, limit, database)
        for _ in range(rounds):
            put = question()
            if limit == OVERVIEW and what == "overview":
                await asyncio.sleep(_PAUSE)
            await _put(asked, clients, put)
        yield asked


def _questions(
    crowd: Crowd, events: list[str], dice: random.Random
) -> Iterator[tuple[str, int, Callable[[], Question]]]:
    """Yield what is asked, how long it may take, and what makes the question anew for each time."""

    def search(which: Search, cursor: str | None = None) -> Question:
        return lambda each: each.search(which, cursor=cursor)

    order, event = (lambda: crowd.id_of(dice.randrange(crowd.orders))), (lambda: dice.choice(events))
    yield "search by an order's id", SEARCH, lambda: search(Search(q=order()))
    yield "search by an event's id", SEARCH, lambda: search(Search(q=event()))
    yield "search by an id that nobody knows", SEARCH, lambda: search(Search(q=f"order-{dice.random()}"))
    lists = {"all": Search(), "step": Search(step="process_payment"), "type": Search(type="order")}
    lists |= {f"state {state}": Search(state=state) for state in SagaState}
    lists |= {f"attention {each}": Search(attention=each) for each in Attention}
    lists |= {"older than 1 h": Search(older_than=timedelta(hours=1))}
    lists |= {"Pending, older than 1 h": Search(state=SagaState.PENDING, older_than=timedelta(hours=1))}
    for name, which in lists.items():
        yield f"list: {name}", LIST, lambda which=which: search(which)
    yield "list: any page of all", LIST, lambda: search(Search(), str(dice.randrange(1_000, 2 * crowd.orders)))
    yield (
        "list: any page of Failed",
        LIST,
        lambda: search(Search(state=SagaState.FAILED), str(dice.randrange(1_000, 2 * crowd.orders))),
    )
    yield "one order", SAGA, lambda: (lambda saga_id: lambda each: each.saga(saga_id))(order())
    yield "an order of 200 entries", SAGA, lambda: lambda each: each.saga(LONGEST)
    yield "overview", OVERVIEW, lambda: lambda each: each.snapshot()


async def _put(asked: Asked, clients: list[HttpClient], question: Question) -> None:
    began = time.perf_counter()
    await asyncio.gather(*(question(each) for each in clients))
    asked.took.append((time.perf_counter() - began) * 1000)


def _events(payment: Tables) -> list[str]:
    """Return some of the events that payment took or emitted, from anywhere in its log."""
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


def _pairs(found: list[Asked]) -> list[tuple[Asked, Asked]]:
    """Return the figures of both databases side by side."""
    half = len(found) // 2
    return list(zip(found[:half], found[half:], strict=True))


def _show(found: list[Asked]) -> None:
    table = Table("question", "limit ms", "SQLite p50", "p95", "PostgreSQL p50", "p95", "")
    for one, other in _pairs(found):
        figures = [f"{each:.0f}" for each in (one.p50, one.p95, other.p50, other.p95)]
        table.add_row(one.what, str(one.limit), *figures, "✓" if one.is_met and other.is_met else "✗")
    Console(width=110).print(table)


def _write(found: list[Asked], sagas: int, directory: Path) -> None:
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


_PAGE = """# How long an operator waits

Written by `make bench-console`, {at}, on {cores} cores with Python {python}. What else ran on the machine at the same
time: its load average was {load} at the end.

{sagas:,} orders over the last hours, in four services: most fulfilled, a tenth refused and undone, some still under
way, a few that stand still; 190,000 to 300,000 log entries in each service. Each service's API is a process of its
own, and each question is put to all four at once, as the console does; it takes as long as the slowest. Milliseconds.

| question | p95 at most | SQLite p50 | p95 | PostgreSQL p50 | p95 | in time |
|---|---|---|---|---|---|---|
{rows}

Where few sagas match, a page comes back after a tenth of a second with what was found, and with the cursor to go on;
the figures are of one page. An overview is asked for every half second, so that each is a new one. The sagas are
counted when the first overview is asked for; from then on only what was written since is read.
"""


if __name__ == "__main__":
    sys.exit(main())
