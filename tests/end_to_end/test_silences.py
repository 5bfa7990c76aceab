"""Connections go silent, time stands still, memory runs out: services notice, and lose nothing."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.end_to_end.breakable_shop import PARTITION, SILENT, BreakableShop, has_ended, memory_alarm, rows_are, turns
from tests.end_to_end.placed_orders import SERVICES, orders
from tests.end_to_end.proxy import Way
from tests.eventually import eventually

#: The memory that a service's process may use; an idle one uses about ninety.
_ENOUGH_MEGABYTES = 250

#: Outages are part of these tests; one is a silence of half a minute.
pytestmark = pytest.mark.timeout(180)

#: How long a replica stands still, in seconds: longer than its lease, and than its heartbeats may be late.
_STANDSTILL = 25


async def test_silent_broker_connections_are_noticed(
    shop: BreakableShop,
) -> None:
    placed = orders(20)
    replicas = await shop.fleet.start(*SERVICES)

    shop.broker.proxy.freeze()
    await shop.fleet.place(placed)
    await asyncio.gather(*(turns(replica, "broker", within=SILENT, to=False) for replica in replicas))

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_silent_database_connections_are_noticed(
    shop: BreakableShop,
) -> None:
    warmth, placed = orders(50), orders(20)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(warmth)
    await shop.fleet.all_ended(warmth)

    shop.database.proxy.freeze()
    frozen_at = time.monotonic()
    await shop.fleet.place(placed)
    await eventually(lambda: has_ended(shop, len(warmth) + 1), within=60, every=0.2, what="an order's end")

    # Every service has noticed by then, one after the other.
    assert time.monotonic() - frozen_at < SILENT
    await shop.fleet.all_ended(warmth + placed)
    assert await shop.fleet.adds_up(warmth + placed) == []


@pytest.mark.parametrize("ways", [(Way.OUT,), (Way.BACK,), tuple(Way)], ids=["out", "back", "both"])
async def test_orders_continue_after_a_partition(shop: BreakableShop, ways: tuple[Way, ...]) -> None:
    placed = orders(50)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(placed)
    await eventually(shop.fleet.moved, what="orders on their way")

    shop.broker.proxy.cut(*ways)
    await asyncio.sleep(PARTITION)  # the partition's own length
    shop.broker.proxy.heal()

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []
    assert await shop.fleet.verified() == []


@pytest.mark.timeout(300)
async def test_a_memory_alarm_fills_outboxes_not_memory(
    shop: BreakableShop,
) -> None:
    if shop.broker.server.container is None:
        pytest.skip("a memory alarm needs a container of the test's own, and no Docker engine answers")
    placed, warmth = orders(400), orders(20)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(warmth)
    await shop.fleet.all_ended(warmth)
    await shop.fleet.kill("inventory")
    await shop.fleet.place(placed)

    async with memory_alarm(shop):
        inventory = await shop.fleet.launch("inventory")
        await eventually(lambda: rows_are(shop, "inventory", len(placed)), within=90, what="a row for each order")
        memory = inventory.megabytes()

    assert memory < _ENOUGH_MEGABYTES
    await shop.fleet.all_ended(warmth + placed, within=90)
    assert await shop.fleet.adds_up(warmth + placed) == []


async def test_a_paused_replica_does_nothing_twice(
    shop: BreakableShop,
) -> None:
    placed = orders(100)
    await shop.fleet.start(*SERVICES, *SERVICES)
    await shop.fleet.place(placed)
    await eventually(shop.fleet.moved, what="orders on their way")

    still = shop.fleet.running("payment")[0]
    still.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(_STANDSTILL)  # the standstill's own length
    still.process.send_signal(signal.SIGCONT)

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []
    assert await shop.fleet.verified() == []
