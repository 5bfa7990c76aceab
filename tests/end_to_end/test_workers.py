"""`saga run SERVICE --workers N`: several processes share a queue, a database and a port; none of them is missed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aio_pika
import httpx
import pytest
from sqlalchemy import select

from tests.cli.conftest import command
from tests.conftest import PostgresDatabases
from tests.end_to_end.observability_files import needs_prometheus, promtool
from tests.end_to_end.parcels import parcel, parcels
from tests.eventually import eventually
from tests.servers import Server
from toolkit import Settings
from toolkit.persistence import outbox, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

#: Each start is three or four processes, on a machine that may be busy.
pytestmark = pytest.mark.timeout(240)

WORKERS = 3


@dataclass
class Depot:
    """The service's environment, its database, and its log."""

    settings: Settings
    database: Database
    folder: Path

    @asynccontextmanager
    async def running(self, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the service until its end, or that of the block."""
        environment = {
            "SAGA_BROKER_URL": self.settings.broker_url,
            "SAGA_EXCHANGE": self.settings.exchange,
            "SAGA_DATABASE_URL": self.database.url,
            "SAGA_DATA_DIR": str(self.folder),
            "SAGA_HTTP_PORT": "0",
            "SAGA_LOG_FORMAT": "json",
            "SAGA_RELAY_LEASE": "1",
        }
        with (self.folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command("run", "tests.end_to_end.parcels:app", *options), env=os.environ | environment, stderr=log
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    def log(self, event: str) -> list[dict[str, object]]:
        """Return the log lines with this text."""
        lines = [json.loads(each) for each in (self.folder / "log").read_text().splitlines() if each.startswith("{")]
        return [line for line in lines if line["event"] == event]

    async def started(self, count: int) -> list[int]:
        """Wait until so many workers are ready; return their processes."""

        async def all_have() -> bool:
            return len(self.log("service started")) == count and await self.readiness() == 200

        await eventually(all_have, within=90, every=0.1, what=f"{count} workers")
        page = await self.get("/metrics")
        assert page is not None
        return [worker for worker in range(1, count + 1) if f'process_open_fds{{worker="{worker}"}}' in page.text]

    async def get(self, path: str) -> httpx.Response | None:
        """Return the answer of the API, if there is one."""
        (port,) = [line["port"] for line in self.log("api listens")] or [None]
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            try:
                return await client.get(f"http://127.0.0.1:{port}{path}")
            except httpx.TransportError:
                return None

    async def readiness(self) -> int | None:
        """Return the status of the readiness."""
        answer = await self.get("/readyz")
        return answer.status_code if answer else None

    async def place(self, numbers: range) -> None:
        """Send the starting events of parcels."""
        async with RabbitPublisher(self.settings) as client:
            await asyncio.gather(*(client.publish(parcel(number)) for number in numbers))

    async def stored(self) -> Counter[int]:
        """Return how many parcels each process has stored."""
        async with self.database.reading() as connection:
            return Counter((await connection.execute(select(parcels.c.pid))).scalars())

    async def are_over(self, count: int) -> bool:
        """Whether so many sagas have completed, and nothing is left to send."""
        async with self.database.reading() as connection:
            sagas = await saga_log_queries.sagas(connection, limit=1000)
            completed = [each for each in sagas if each.state == "Completed"]
            return len(completed) == count and not await outbox.count(connection)


@pytest.fixture
async def depot(
    rabbitmq: Server, postgres_databases: PostgresDatabases, prefix: str, tmp_path: Path
) -> AsyncIterator[Depot]:
    database = Database(await postgres_databases.url("depot"))
    yield Depot(Settings(broker_url=rabbitmq.url, exchange=prefix), database, tmp_path)
    await database.close()
    connection = await aio_pika.connect(rabbitmq.url)
    async with connection, connection.channel() as channel:
        for name in (f"{prefix}.depot", f"{prefix}.depot.dead"):
            await channel.queue_delete(name)
        for name in (prefix, f"{prefix}.dead", f"{prefix}.depot"):
            await channel.exchange_delete(name)


async def test_workers_share_sagas_and_replace_a_killed_one(depot: Depot) -> None:
    async with depot.running("--workers", str(WORKERS)) as process:
        assert await depot.started(WORKERS) == [1, 2, 3]

        await depot.place(range(300))
        await eventually(lambda: depot.are_over(300), within=60, what="300 sagas")
        stored, page = await depot.stored(), await depot.get("/metrics")
        assert (len(stored), stored.total()) == (WORKERS, 300)
        assert page is not None
        assert 'saga_started_total{saga_type="parcel",service="depot"} 300.0' in page.text
        assert 'saga_completed_total{saga_type="parcel",service="depot"} 300.0' in page.text
        assert len(re.findall(r"^saga_outbox_rows{.*} 0.0$", page.text, re.MULTILINE)) == 1, "read once, not added up"

        os.kill(next(iter(stored)), signal.SIGKILL)
        await depot.place(range(300, 400))
        await eventually(lambda: is_status(depot, 503), within=5, what="a service that is not ready")
        await eventually(lambda: depot.are_over(400), within=60, what="400 sagas")
        await eventually(lambda: is_status(depot, 200), within=90, what="the new worker")

        process.terminate()
        assert await asyncio.wait_for(process.wait(), 11) == 0
    (death,) = depot.log("worker ended; another takes its place")
    assert (death["reason"], death["restarts"], death["level"]) == ("signal SIGKILL", 1, "warning")
    assert {line["worker"] for line in depot.log("service started")} == {1, 2, 3}
    assert len(depot.log("service stopped")) == WORKERS


@needs_prometheus
async def test_promtool_accepts_the_page_that_workers_share(depot: Depot) -> None:
    async with depot.running("--workers", "2"):
        await depot.started(2)
        page = await depot.get("/metrics")

    assert page is not None
    assert promtool("check", "metrics", page=page.content) == ""


async def test_stopped_and_orphaned_workers_lose_nothing(depot: Depot) -> None:
    async with depot.running("--workers", "2") as process:
        await depot.started(2)
        placing = asyncio.create_task(depot.place(range(300)))
        await eventually(depot.stored, within=60, what="a stored parcel")
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 11) == 0
        await placing
    assert len(depot.log("service stopped")) == 2

    async with depot.running("--workers", "2") as process:
        await depot.started(2)
        placing = asyncio.create_task(depot.place(range(300, 600)))
        process.kill()
        await placing
        await eventually(lambda: are_lines(depot, "service stopped", 2), within=11, what="the ends of the orphans")
    assert len(depot.log("the supervisor has died, so its workers stop")) == 2

    async with depot.running():
        await eventually(lambda: depot.are_over(600), within=90, what="600 sagas")
    assert (await depot.stored()).total() == 600


async def is_status(depot: Depot, status: int) -> bool:
    return await depot.readiness() == status


async def are_lines(depot: Depot, event: str, count: int) -> bool:
    return len(depot.log(event)) == count
