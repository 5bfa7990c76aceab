"""A real SIGKILL during 200 orders: after the restart all of them end, and stock and money add up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import PostgresDatabases
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.placed_orders import PATIENT, SERVICES, orders
from tests.eventually import eventually
from tests.servers import Server
from toolkit import Settings

OpenFleet = Callable[[str], AbstractAsyncContextManager[Fleet]]


@pytest.fixture
def open_fleet(rabbitmq: Server, postgres_databases: PostgresDatabases, tmp_path: Path, prefix: str) -> OpenFleet:
    @asynccontextmanager
    async def opened(kind: str) -> AsyncIterator[Fleet]:
        settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
        urls = (
            {name: await postgres_databases.url(name) for name in SERVICES}
            if kind == "postgresql"
            else sqlite_databases(tmp_path)
        )
        fleet = Fleet(settings, urls, environment=PATIENT)
        try:
            yield fleet
        finally:
            await fleet.stop()

    return opened


@pytest.mark.parametrize(("victim", "database"), [("inventory", "postgresql"), ("payment", "sqlite")])
async def test_a_killed_service_loses_nothing(open_fleet: OpenFleet, victim: str, database: str) -> None:
    placed = orders(200)
    async with open_fleet(database) as fleet:
        await fleet.start(*SERVICES)

        await fleet.place(placed)
        await eventually(fleet.moved, what="orders on their way")
        await fleet.kill(victim)
        assert (await fleet.ended()).total() < len(placed)
        await fleet.start(victim)
        await fleet.all_ended(placed)

        assert await fleet.adds_up(placed) == []
        assert await fleet.verified() == []


async def test_killing_one_of_two_replicas_loses_nothing(open_fleet: OpenFleet) -> None:
    placed = orders(200)
    async with open_fleet("postgresql") as fleet:
        await fleet.start(*SERVICES, *SERVICES)

        await fleet.place(placed)
        await eventually(fleet.moved, what="orders on their way")
        for name in SERVICES:
            await fleet.kill(name)
        assert (await fleet.ended()).total() < len(placed)
        await fleet.all_ended(placed)

        assert await fleet.adds_up(placed) == []
        assert await fleet.verified() == []


async def test_stopped_services_exit_cleanly_and_continue_later(open_fleet: OpenFleet) -> None:
    placed = orders(200)
    async with open_fleet("sqlite") as fleet:
        await fleet.start(*SERVICES)
        await fleet.place(placed)
        await eventually(fleet.moved, what="orders on their way")

        codes = await fleet.terminate()
        await fleet.start(*SERVICES)
        await fleet.all_ended(placed)

        assert codes == [0, 0, 0, 0]
        assert await fleet.adds_up(placed) == []
        assert await fleet.verified() == []


async def test_a_killed_embedded_process_loses_nothing(tmp_path: Path) -> None:
    placed = orders(200)
    file = tmp_path / "orders.json"
    file.write_text(json.dumps([order.model_dump(mode="json") for order in placed]))
    databases = sqlite_databases(tmp_path)
    fleet = Fleet(Settings(data_dir=tmp_path, broker_url="embedded"), databases)

    first = await _embedded(tmp_path, file, "10")
    assert await asyncio.wait_for(first.wait(), 90) == -signal.SIGKILL
    before = await fleet.ended()
    second = await _embedded(tmp_path, file)

    assert await asyncio.wait_for(second.wait(), 150) == 0
    assert sum(before.values()) < len(placed)
    await fleet.all_ended(placed)
    assert await fleet.adds_up(placed) == []
    assert await fleet.verified() == []
    await fleet.close()


async def _embedded(data_dir: Path, file: Path, *kill_at: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.end_to_end.embedded_orders", str(data_dir), str(file), *kill_at,
        env=os.environ | PATIENT,
    )  # fmt: skip
