"""The four services behind proxies, and what tests wait for during outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import aio_pika
import asyncpg
from aio_pika.abc import AbstractChannel

from services.events import OrderCreated
from tests.end_to_end.breakable import Breakable
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.placed_orders import SERVICES
from tests.end_to_end.replica import Replica
from tests.eventually import eventually

T = TypeVar("T")

#: How soon a service has to notice an outage that closes its connections, and one that only silences them, in seconds.
ALOUD, SILENT = 5, 30
#: How long a partition lasts, in seconds: longer than a lease.
PARTITION = 10


@dataclass(frozen=True, slots=True)
class BreakableShop:
    """The services, and their servers behind proxies."""

    fleet: Fleet
    broker: Breakable
    database: Breakable
    queue_of: Callable[[str], str]


async def turns(replica: Replica, part: str, *, within: float, to: bool) -> None:
    async def has_turned() -> bool:
        return (await replica.readiness()).get(part) is to

    await eventually(has_turned, within=within, what=f"{replica.name}: {part} {to}")


async def end_connections(shop: BreakableShop) -> None:
    """End every session on the services' databases, as an administrator or a failover does."""
    connection = await asyncpg.connect(shop.database.url)
    try:
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'")
    finally:
        await connection.close()


@asynccontextmanager
async def memory_alarm(shop: BreakableShop) -> AsyncIterator[None]:
    """Lower the broker's memory limit, so that it raises its alarm and accepts no publishes."""
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


async def place_steadily(shop: BreakableShop, placed: Sequence[OrderCreated]) -> None:
    for start in range(0, len(placed), 10):
        await shop.fleet.place(placed[start : start + 10])
        await asyncio.sleep(0.5)  # the rate


async def has_moved_on(shop: BreakableShop, moved: int) -> bool:
    return await shop.fleet.moved() > moved or (await shop.fleet.ended()).total() > 0


async def has_ended(shop: BreakableShop, count: int) -> bool:
    return (await shop.fleet.ended()).total() >= count


async def rows_are(shop: BreakableShop, name: str, count: int) -> bool:
    return await shop.fleet.waiting_rows(name) == count


async def rows_at_rest(shop: BreakableShop) -> int:
    """Return how many rows all outboxes have, once the number is stable; else 0."""
    before = [await shop.fleet.waiting_rows(name) for name in SERVICES]
    await asyncio.sleep(0.5)  # longer than a transaction takes
    after = [await shop.fleet.waiting_rows(name) for name in SERVICES]
    return sum(after) if before == after else 0


async def ready_messages(shop: BreakableShop, name: str) -> int:
    async def count(channel: AbstractChannel) -> int:
        queue = await channel.declare_queue(shop.queue_of(name), passive=True)
        return queue.declaration_result.message_count or 0

    return await on_the_broker(shop, count)


async def on_the_broker(shop: BreakableShop, act: Callable[[AbstractChannel], Awaitable[T]]) -> T:
    connection = await aio_pika.connect(shop.broker.url)
    async with connection, connection.channel() as channel:
        return await act(channel)
