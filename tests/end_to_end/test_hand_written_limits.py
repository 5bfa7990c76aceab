"""The benchmark's limits keep the guarantees that they are compared with: a kill -9 loses and doubles nothing."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from benchmarks.catalogue import system_named
from benchmarks.load import Case
from benchmarks.running import Running, Servers, run
from tests.eventually import eventually
from tests.servers import Server

LIMITS = (
    "by hand",
    "by hand, frames as bytes",
    "by hand, SQLModel row",
    "by hand, a statement a table",
    "by hand, SQLite",
    "by hand, SQLite, SQLModel row",
)
EMBEDDED = ("by hand, embedded", "by hand, embedded, SQLModel row")


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


@pytest.mark.parametrize("name", EMBEDDED)
async def test_an_embedded_limit_completes_a_load(name: str, rabbitmq: Server, postgresql: Server) -> None:
    async with run(system_named(name), Servers(rabbitmq.url, postgresql.url)) as running:
        await running.load(Case(orders=1_000, at_once=100, refused=0.3))

        assert await running.violations() == []


@pytest.mark.parametrize("name", EMBEDDED)
async def test_a_killed_embedded_limit_finishes_what_it_began(name: str, rabbitmq: Server, postgresql: Server) -> None:
    async with run(system_named(name), Servers(rabbitmq.url, postgresql.url)) as running:
        loading = asyncio.create_task(running.load(Case(orders=100_000, at_once=100)))
        await eventually(partial(has_shipped, running), what="some orders")
        running.processes[0].kill()
        with pytest.raises(RuntimeError, match="ended before its load"):  # it is its own client
            await loading
        async with running.again():
            await eventually(partial(has_finished, running), what="the same orders in all services, once")


async def has_shipped(running: Running) -> bool:
    return (await running.databases.effects())["mail"].rows > 0


async def has_finished(running: Running) -> bool:
    """Whether each service has as many rows as any other."""
    return len(set((await running.databases.effects()).values())) == 1
