"""Broker and database fail while orders run, in every way a test can cause: all recovers by itself.

Restarts are real, of the tests' own containers. Proxies between the services and the servers do the rest, and the
test bypasses them.
"""

from __future__ import annotations

import asyncio

import pytest
from aio_pika.abc import AbstractChannel

from tests.end_to_end.breakable_shop import (
    ALOUD,
    BreakableShop,
    end_connections,
    has_moved_on,
    on_the_broker,
    ready_messages,
    rows_at_rest,
    turns,
)
from tests.end_to_end.placed_orders import SERVICES, orders
from tests.eventually import eventually

#: Outages are part of these tests; one is a silence of half a minute.
pytestmark = pytest.mark.timeout(180)


#: Seconds: RabbitMQ 4.0 loses the log of a quorum queue that is younger when it is killed, and never confirms again.
_NEWBORN = 3


@pytest.mark.parametrize("gently", [True, False], ids=["in good order", "killed"])
async def test_orders_continue_after_a_broker_restart(shop: BreakableShop, gently: bool) -> None:
    placed = orders(100)
    await shop.fleet.start(*SERVICES)
    await asyncio.sleep(_NEWBORN)  # see _NEWBORN
    await shop.fleet.place(placed)
    await eventually(shop.fleet.moved, what="orders on their way")

    assert (await shop.fleet.ended()).total() < len(placed)
    await shop.broker.restart(gently=gently)

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_orders_continue_after_a_database_crash(shop: BreakableShop) -> None:
    placed = orders(100)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(placed)
    await eventually(shop.fleet.moved, what="orders on their way")

    await shop.database.restart(gently=False)

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_orders_survive_repeatedly_ended_database_connections(shop: BreakableShop) -> None:
    placed = orders(100)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(placed)

    for _ in range(5):
        moved = await shop.fleet.moved()
        await end_connections(shop)
        await eventually(lambda moved=moved: has_moved_on(shop, moved), what="orders on their way")

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_rows_wait_during_a_broker_outage(shop: BreakableShop) -> None:
    placed = orders(100)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(placed)
    await eventually(shop.fleet.moved, what="orders on their way")

    shop.broker.proxy.refuse()
    waiting = await eventually(lambda: rows_at_rest(shop), what="rows that wait")
    ended = await shop.fleet.ended()
    shop.broker.proxy.heal()

    assert waiting > 0
    assert ended.total() < len(placed)
    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_a_service_without_database_holds_its_prefetch(
    shop: BreakableShop,
) -> None:
    placed = orders(500)
    (inventory,) = await shop.fleet.start("inventory")
    shop.database.proxy.refuse()
    await turns(inventory, "database", within=ALOUD, to=False)

    await shop.fleet.place(placed)
    left = await eventually(lambda: ready_messages(shop, "inventory"), what="messages in the queue")
    shop.database.proxy.heal()
    await shop.fleet.start("payment", "shipping", "notification")

    assert left == len(placed) - shop.fleet.settings.prefetch
    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_a_deleted_queue_is_restored(shop: BreakableShop) -> None:
    placed = orders(50)
    await shop.fleet.start("inventory", "notification", "shipping")
    (payment,) = await shop.fleet.start("payment")

    await on_the_broker(shop, lambda channel: channel.queue_delete(shop.queue_of("payment")))
    await shop.fleet.place(placed)

    await shop.fleet.all_ended(placed)
    assert await payment.is_ready()
    assert await shop.fleet.adds_up(placed) == []


async def test_a_deleted_binding_is_restored(shop: BreakableShop) -> None:
    placed = orders(50)
    await shop.fleet.start(*SERVICES)
    exchange = shop.fleet.settings.exchange

    async def unbind(channel: AbstractChannel) -> None:
        queue = await channel.get_queue(shop.queue_of("payment"))
        await queue.unbind(exchange, "inventory.InventoryReserved")

    await on_the_broker(shop, unbind)
    await shop.fleet.place(placed)

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


@pytest.mark.parametrize("part", ["broker", "database"])
async def test_readiness_follows_an_outage_within_seconds(shop: BreakableShop, part: str) -> None:
    (shipping,) = await shop.fleet.start("shipping")
    proxy = (shop.broker if part == "broker" else shop.database).proxy

    proxy.refuse()
    await turns(shipping, part, within=ALOUD, to=False)
    proxy.heal()
    await turns(shipping, part, within=ALOUD, to=True)
    await eventually(shipping.is_ready, within=ALOUD, what="a ready service")
