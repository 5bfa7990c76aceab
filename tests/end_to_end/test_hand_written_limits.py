"""The benchmark's limits keep the guarantees that they are compared with: a kill -9 loses and doubles nothing."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.catalogue import system_named
from benchmarks.load import Case
from benchmarks.running import Servers, run
from tests.servers import Server

LIMITS = (
    "by hand",
    "by hand, frames as bytes",
    "by hand, SQLModel row",
    "by hand, a statement a table",
    "by hand, SQLite",
)


@pytest.mark.parametrize("name", LIMITS)
async def test_a_killed_limit_finishes_all_orders_once(name: str, rabbitmq: Server, postgresql: Server) -> None:
    async with run(system_named(name), Servers(rabbitmq.url, postgresql.url)) as running:
        loading = asyncio.create_task(running.load(Case(orders=1_000, at_once=100, refused=0.3)))
        await asyncio.sleep(0.3)
        running.processes[0].kill()
        async with running.again():
            await loading
            wrong = await running.violations()

    assert wrong == []
