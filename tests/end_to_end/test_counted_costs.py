"""The costs of a batch that can be counted, whatever the machine: a change that adds a round trip fails here."""

from __future__ import annotations

import pytest

from benchmarks.catalogue import system_named
from benchmarks.counters import Counts
from benchmarks.load import Case
from benchmarks.running import Servers, run
from tests.servers import Server

WARM_UP, COUNTED = Case(orders=100, at_once=50), Case(orders=300, at_once=100)


async def counted(name: str, servers: Servers) -> Counts:
    async with run(system_named(name), servers) as running:
        await running.load(WARM_UP)
        counts = await running.count(COUNTED)
        assert await running.violations() == []
        return counts


@pytest.fixture
def servers(rabbitmq: Server, postgresql: Server) -> Servers:
    return Servers(rabbitmq.url, postgresql.url)


async def test_the_limit_commits_a_batch_in_one_round_trip(servers: Servers) -> None:
    counts = await counted("by hand", servers)

    assert counts.round_trips == counts.transactions > 0
    assert counts.sends / counts.transactions < 4


async def test_a_batch_of_the_toolkit_makes_few_calls(servers: Servers) -> None:
    counts = await counted("toolkit", servers)

    # For each transaction: the size of a batch depends on the machine, and some transactions write no own rows.
    assert counts.round_trips / counts.transactions < 5
    assert counts.sends / counts.transactions < 7


@pytest.mark.parametrize(("name", "sends"), [("toolkit, SQLite", 3), ("toolkit, embedded", 1.5)])
async def test_a_saga_on_sqlite_makes_few_calls(name: str, sends: float, servers: Servers) -> None:
    counts = await counted(name, servers)

    assert counts.sends < sends  # each change to the thread of a connection, and back, is one
    assert counts.turns < 2 * sends
