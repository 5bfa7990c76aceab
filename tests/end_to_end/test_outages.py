"""Broker and database go away in the midst of orders, in every way a test can bring about: all comes back by itself.

Restarts are real, of containers of the test's own. The rest is done by proxies between the services and the servers,
so that the test can look past it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aio_pika
import asyncpg
import pytest
from aio_pika.abc import AbstractChannel

from services.events import OrderCreated
from tests.conftest import PostgresDatabases
from tests.end_to_end.breakable import Breakable, OwnServer, breakable, own_server
from tests.end_to_end.fleet import PATIENT, SERVICES, Fleet, Replica, orders
from tests.end_to_end.proxy import Way
from tests.eventually import eventually
from tests.servers import POSTGRESQL, RABBITMQ
from toolkit import Settings

T = TypeVar("T")

#: Outages are part of these tests, and one of them is a silence of half a minute.
pytestmark = pytest.mark.timeout(180)

#: How soon a service has to notice: what ends aloud, and what only goes silent, in seconds.
_ALOUD, _SILENT = 5, 30
#: How long a partition lasts, and a standstill: longer than a lease, and than a heartbeat that is missed, in seconds.
_PARTITION, _STANDSTILL = 10, 25
#: RabbitMQ 4.0 loses the log of a quorum queue that is younger when it is killed, and never confirms there again, in
#: seconds.
_NEWBORN = 3
#: What a service's process may take in all; an idle one takes about ninety.
_ENOUGH_MEGABYTES = 250


@dataclass(frozen=True, slots=True)
class Shop:
    """The services, and the servers between which and them the proxies stand."""

    fleet: Fleet
    broker: Breakable
    database: Breakable
    queue_of: Callable[[str], str]


@pytest.fixture(scope="module")
def own_rabbitmq() -> Iterator[OwnServer]:
    with own_server(RABBITMQ) as server:
        yield server


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[OwnServer]:
    with own_server(POSTGRESQL) as server:
        yield server


@pytest.fixture
async def shop(own_rabbitmq: OwnServer, own_postgresql: OwnServer, tmp_path: Path, prefix: str) -> AsyncIterator[Shop]:
    databases = PostgresDatabases(own_postgresql.url)
    urls = {name: await databases.url(name) for name in SERVICES}
    async with breakable(own_rabbitmq) as broker, breakable(own_postgresql) as database, AsyncExitStack() as stack:
        fleet = Fleet(
            Settings(broker_url=broker.url, exchange=prefix, data_dir=tmp_path),
            urls,
            through=lambda _, url: broker.proxy.through(database.proxy.through(url)),
            environment=PATIENT,
        )
        stack.push_async_callback(databases.drop)
        stack.push_async_callback(fleet.stop)
        stack.callback(database.proxy.heal)
        stack.callback(broker.proxy.heal)
        yield Shop(fleet, broker, database, lambda name: f"{prefix}.{name}")


@pytest.mark.parametrize("gently", [True, False], ids=["in good order", "killed"])
async def test_orders_go_on_after_the_broker_was_restarted_in_their_midst(shop: Shop, gently: bool) -> None:
    placed = orders(100)
    await shop.fleet.start(*SERVICES)
    await asyncio.sleep(_NEWBORN)  # see there
    await shop.fleet.place(placed)
    await eventually(shop.fleet.moved, what="orders on their way")

    assert (await shop.fleet.ended()).total() < len(placed)
    await shop.broker.restart(gently=gently)

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_orders_go_on_after_the_database_lost_its_power_in_their_midst(shop: Shop) -> None:
    placed = orders(100)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(placed)
    await eventually(shop.fleet.moved, what="orders on their way")

    await shop.database.restart(gently=False)

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_orders_go_on_after_all_database_connections_were_ended_again_and_again(shop: Shop) -> None:
    placed = orders(100)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(placed)

    for _ in range(5):
        moved = await shop.fleet.moved()
        await _end_connections(shop)
        await eventually(lambda moved=moved: _has_moved_on(shop, moved), what="orders on their way")

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_rows_wait_while_the_broker_is_away_and_go_when_it_is_back(shop: Shop) -> None:
    placed = orders(100)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(placed)
    await eventually(shop.fleet.moved, what="orders on their way")

    shop.broker.proxy.refuse()
    waiting = await eventually(lambda: _rows_at_rest(shop), what="rows that wait")
    ended = await shop.fleet.ended()
    shop.broker.proxy.heal()

    assert waiting > 0
    assert ended.total() < len(placed)
    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_a_service_without_its_database_acks_nothing_and_takes_no_more_than_its_prefetch(shop: Shop) -> None:
    placed = orders(500)
    (inventory,) = await shop.fleet.start("inventory")
    shop.database.proxy.refuse()
    await _turns(inventory, "database", within=_ALOUD, to=False)

    await shop.fleet.place(placed)
    left = await eventually(lambda: _ready_messages(shop, "inventory"), what="messages in the queue")
    shop.database.proxy.heal()
    await shop.fleet.start("payment", "shipping", "notification")

    assert left == len(placed) - shop.fleet.settings.prefetch
    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_a_deleted_queue_is_restored_and_what_was_published_meanwhile_waits(shop: Shop) -> None:
    placed = orders(50)
    await shop.fleet.start("inventory", "notification", "shipping")
    (payment,) = await shop.fleet.start("payment")

    await _on_the_broker(shop, lambda channel: channel.queue_delete(shop.queue_of("payment")))
    await shop.fleet.place(placed)

    await shop.fleet.all_ended(placed)
    assert await payment.is_ready()
    assert await shop.fleet.adds_up(placed) == []


async def test_a_deleted_binding_is_restored_and_what_was_published_meanwhile_waits(shop: Shop) -> None:
    placed = orders(50)
    await shop.fleet.start(*SERVICES)
    exchange = shop.fleet.settings.exchange

    async def unbind(channel: AbstractChannel) -> None:
        queue = await channel.get_queue(shop.queue_of("payment"))
        await queue.unbind(exchange, "inventory.InventoryReserved")

    await _on_the_broker(shop, unbind)
    await shop.fleet.place(placed)

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_connections_to_the_broker_that_only_go_silent_are_noticed_within_half_a_minute(shop: Shop) -> None:
    placed = orders(20)
    replicas = await shop.fleet.start(*SERVICES)

    shop.broker.proxy.freeze()
    await shop.fleet.place(placed)
    await asyncio.gather(*(_turns(replica, "broker", within=_SILENT, to=False) for replica in replicas))

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def test_connections_to_the_database_that_only_go_silent_are_noticed_within_half_a_minute(shop: Shop) -> None:
    warmth, placed = orders(50), orders(20)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(warmth)
    await shop.fleet.all_ended(warmth)

    shop.database.proxy.freeze()
    frozen_at = time.monotonic()
    await shop.fleet.place(placed)
    await eventually(lambda: _has_ended(shop, len(warmth) + 1), within=60, every=0.2, what="an order's end")

    # Every service has noticed by then, one after the other, though at the same time.
    assert time.monotonic() - frozen_at < _SILENT
    await shop.fleet.all_ended(warmth + placed)
    assert await shop.fleet.adds_up(warmth + placed) == []


@pytest.mark.parametrize("ways", [(Way.OUT,), (Way.BACK,), tuple(Way)], ids=["out", "back", "both"])
async def test_orders_go_on_after_ten_seconds_behind_a_partition(shop: Shop, ways: tuple[Way, ...]) -> None:
    placed = orders(50)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(placed)
    await eventually(shop.fleet.moved, what="orders on their way")

    shop.broker.proxy.cut(*ways)
    await asyncio.sleep(_PARTITION)  # the partition's own length
    shop.broker.proxy.heal()

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []
    assert await shop.fleet.verified() == []


@pytest.mark.timeout(300)
async def test_a_broker_that_takes_nothing_for_want_of_memory_fills_outboxes_and_not_the_services_memory(
    shop: Shop,
) -> None:
    if shop.broker.server.container is None:
        pytest.skip("an alarm is raised in a container of the test's own, and no Docker engine answers")
    placed, warmth = orders(400), orders(20)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(warmth)
    await shop.fleet.all_ended(warmth)
    await shop.fleet.kill("inventory")
    await shop.fleet.place(placed)

    async with _alarm(shop):
        inventory = await shop.fleet.launch("inventory")
        await eventually(lambda: _rows_are(shop, "inventory", len(placed)), within=90, what="a row for each order")
        memory = inventory.megabytes()

    assert memory < _ENOUGH_MEGABYTES
    await shop.fleet.all_ended(warmth + placed, within=90)
    assert await shop.fleet.adds_up(warmth + placed) == []


async def test_a_replica_whose_time_stood_still_beyond_its_lease_and_its_heartbeat_does_nothing_twice(
    shop: Shop,
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


async def test_three_replicas_are_restarted_one_after_the_other_under_load(shop: Shop) -> None:
    placed = orders(150)
    await shop.fleet.start("inventory", "shipping", "notification", *["payment"] * 3)
    placing = asyncio.create_task(_place_steadily(shop, placed))

    codes = []
    for _ in range(3):
        codes.append(await shop.fleet.oldest("payment").terminate())
        await shop.fleet.start("payment")
    await placing

    assert codes == [0, 0, 0]
    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []
    assert await shop.fleet.verified() == []


async def test_a_service_started_for_the_first_time_after_100_orders_ends_them_all(shop: Shop) -> None:
    placed = orders(100)
    await shop.fleet.start("inventory", "shipping", "notification")

    await shop.fleet.place(placed)
    await eventually(lambda: _rows_are(shop, "inventory", len(placed)), what="a row for each order")
    await shop.fleet.start("payment")

    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


@pytest.mark.parametrize("part", ["broker", "database"])
async def test_readiness_follows_an_outage_and_its_end_within_five_seconds(shop: Shop, part: str) -> None:
    (shipping,) = await shop.fleet.start("shipping")
    proxy = (shop.broker if part == "broker" else shop.database).proxy

    proxy.refuse()
    await _turns(shipping, part, within=_ALOUD, to=False)
    proxy.heal()
    await _turns(shipping, part, within=_ALOUD, to=True)
    await eventually(shipping.is_ready, within=_ALOUD, what="a ready service")


@pytest.mark.parametrize("for_long", [False, True], ids=["at once", "after a heartbeat"])
@pytest.mark.parametrize("away", [(), ("broker",), ("database",), ("broker", "database")], ids="+".join)
async def test_services_told_to_stop_under_load_exit_within_ten_seconds_and_lose_nothing(
    shop: Shop, away: tuple[str, ...], for_long: bool
) -> None:
    placed = orders(100)
    await shop.fleet.start(*SERVICES)
    await shop.fleet.place(placed)
    await eventually(shop.fleet.moved, what="orders on their way")

    for part in away:
        (shop.broker if part == "broker" else shop.database).proxy.cut(*Way)
    if for_long:
        await asyncio.sleep(_PARTITION)  # by now the client tries to end its connection by itself
    codes = await shop.fleet.terminate()
    shop.broker.proxy.heal()
    shop.database.proxy.heal()
    await shop.fleet.start(*SERVICES)

    assert codes == [0, 0, 0, 0]
    await shop.fleet.all_ended(placed)
    assert await shop.fleet.adds_up(placed) == []


async def _turns(replica: Replica, part: str, *, within: float, to: bool) -> None:
    async def has_turned() -> bool:
        return (await replica.readiness()).get(part) is to

    await eventually(has_turned, within=within, what=f"{replica.name}: {part} {to}")


async def _end_connections(shop: Shop) -> None:
    """End every session on the services' databases, as an administrator does, or a failover."""
    connection = await asyncpg.connect(shop.database.url)
    try:
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'")
    finally:
        await connection.close()


@asynccontextmanager
async def _alarm(shop: Shop) -> AsyncIterator[None]:
    """Let the broker have next to no memory meanwhile, so that it raises its alarm and takes no publishes."""
    assert shop.broker.server.container is not None
    container = shop.broker.server.container.get_wrapped_container()

    async def set_watermark(*much: str) -> None:
        done = await asyncio.to_thread(container.exec_run, ["rabbitmqctl", "set_vm_memory_high_watermark", *much])
        assert done.exit_code == 0, done.output

    await set_watermark("absolute", "100MB")
    try:
        yield
    finally:
        await set_watermark("0.6")


async def _place_steadily(shop: Shop, placed: Sequence[OrderCreated]) -> None:
    for start in range(0, len(placed), 10):
        await shop.fleet.place(placed[start : start + 10])
        await asyncio.sleep(0.5)  # the rate


async def _has_moved_on(shop: Shop, moved: int) -> bool:
    return await shop.fleet.moved() > moved or (await shop.fleet.ended()).total() > 0


async def _has_ended(shop: Shop, count: int) -> bool:
    return (await shop.fleet.ended()).total() >= count


async def _rows_are(shop: Shop, name: str, count: int) -> bool:
    return await shop.fleet.waiting_rows(name) == count


async def _rows_at_rest(shop: Shop) -> int:
    """Return how many rows wait in all, once nothing adds to them any more."""
    before = [await shop.fleet.waiting_rows(name) for name in SERVICES]
    await asyncio.sleep(0.5)  # longer than a transaction takes
    after = [await shop.fleet.waiting_rows(name) for name in SERVICES]
    return sum(after) if before == after else 0


async def _ready_messages(shop: Shop, name: str) -> int:
    async def count(channel: AbstractChannel) -> int:
        queue = await channel.declare_queue(shop.queue_of(name), passive=True)
        return queue.declaration_result.message_count or 0

    return await _on_the_broker(shop, count)


async def _on_the_broker(shop: Shop, act: Callable[[AbstractChannel], Awaitable[T]]) -> T:
    connection = await aio_pika.connect(shop.broker.url)
    async with connection, connection.channel() as channel:
        return await act(channel)
