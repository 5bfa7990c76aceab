"""Replicas stop and start under load, with and without their servers, and lose nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.end_to_end.breakable_shop import PARTITION, BreakableShop, place_steadily, rows_are
from tests.end_to_end.placed_orders import SERVICES, orders
from tests.end_to_end.proxy import Way
from tests.eventually import eventually

#: Outages are part of these tests; one is a silence of half a minute.
pytestmark = pytest.mark.timeout(180)


async def test_replicas_are_restarted_one_by_one(shop: BreakableShop) -> None:
    placed = orders(150)
    await shop.fleet.start("inventory", "shipping", "notification", *["payment"] * 3)
    placing = asyncio.create_task(place_steadily(shop, placed))

    codes = []
    for _ in range(3):
        codes.append(await shop.fleet.oldest("payment").terminate())
        await shop.fleet.start("payment")
    await placing

    assert codes == [0, 0, 0]
    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []
    assert await shop.fleet.verified() == []


async def test_a_service_started_late_ends_all_orders(shop: BreakableShop) -> None:
    placed = orders(100)
    await shop.fleet.start("inventory", "shipping", "notification")

    await shop.fleet.place(placed)
    await eventually(lambda: rows_are(shop, "inventory", len(placed)), what="a row for each order")
    await shop.fleet.start("payment")

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


@pytest.mark.parametrize("for_long", [False, True], ids=["at once", "after a heartbeat"])
@pytest.mark.parametrize("away", [(), ("broker",), ("database",), ("broker", "database")], ids="+".join)
async def test_stopped_services_exit_soon_and_lose_nothing(
    shop: BreakableShop, away: tuple[str, ...], for_long: bool
) -> None:
    placed = orders(100)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(placed)
    await eventually(shop.fleet.moved, what="orders on their way")

    for part in away:
        (shop.broker if part == "broker" else shop.database).proxy.cut(*Way)
    if for_long:
        await asyncio.sleep(PARTITION)  # by now the client tries to close its connection by itself
    codes = await shop.fleet.terminate()
    shop.broker.proxy.heal()
    shop.database.proxy.heal()
    await shop.fleet.start(*SERVICES)

    assert codes == [0, 0, 0, 0]
    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []
