"""The benchmark's limits keep the guarantees that they are compared with: a kill -9 loses and doubles nothing."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.databases import OnFiles, OnPostgres
from benchmarks.load import Case
from benchmarks.measure import SYSTEMS, Ground, _placing, _running, _wrong
from benchmarks.systems.process import Asked
from tests.servers import Server

LIMITS = (
    "by hand",
    "by hand, frames as bytes",
    "by hand, SQLModel row",
    "by hand, a statement a table",
    "by hand, SQLite",
)


@pytest.mark.parametrize("name", LIMITS)
async def test_a_killed_limit_finishes_all_orders_once(
    name: str, rabbitmq: Server, postgresql: Server, prefix: str
) -> None:
    system = next(each for each in SYSTEMS if each.name == name)
    databases = OnFiles() if system.on_files else OnPostgres(postgresql.url)
    ground = Ground(rabbitmq.url, postgresql.url)
    asked = Asked(broker=rabbitmq.url, exchange=prefix, databases=await databases.urls())
    try:
        async with _running(system, asked, ground) as processes, _placing(processes, system, asked) as place:
            loading = asyncio.create_task(place(Case(orders=1_000, at_once=100, refused=0.3)))
            await asyncio.sleep(0.3)
            processes[0].kill()
            async with _running(system, asked, ground):
                load = await loading
                wrong = await _wrong(databases, [load])
    finally:
        await ground._clean(asked)
        await databases.drop()

    assert wrong == []
