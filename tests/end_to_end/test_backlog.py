"""A backlog of expired events drains by itself, in little memory, and reserves nothing.

`BACKLOG` is the number of events, and `DRAIN_RATE` the least number that a process has to refuse per second:
`make backlog` has 100,000.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.events import OrderCreated
from services.inventory.models import Reservation
from tests.conftest import PostgresDatabases
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.placed_orders import SERVICES, orders
from tests.eventually import eventually
from tests.servers import Server
from toolkit import Settings
from toolkit.ids import new_id
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

BACKLOG = int(os.environ.get("BACKLOG", "2000"))
#: A service has to refuse a thousand; a process on a share of a busy core does less.
DRAIN_RATE = float(os.environ.get("DRAIN_RATE", "100"))
#: The memory that a process may use, however long the backlog; an idle one uses about ninety.
ENOUGH_MEGABYTES = 150
#: How many are published at once.
_AT_ONCE = 500


@pytest.mark.timeout(60 + BACKLOG / 100)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_expired_orders_are_refused_without_a_step(
    rabbitmq: Server, postgres_databases: PostgresDatabases, tmp_path: Path, prefix: str, kind: str
) -> None:
    on_server = {name: await postgres_databases.url(name) for name in SERVICES} if kind == "postgresql" else {}
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
    fleet = Fleet(settings, on_server or sqlite_databases(tmp_path))
    try:
        await fleet.start("inventory", "notification")
        await fleet.terminate()
        await place_long_ago(settings, orders(BACKLOG))

        (inventory,) = await fleet.start("inventory")
        await eventually(lambda: all_refused(fleet), within=30 + BACKLOG / 200, every=0.5, what="all of them refused")
        await eventually(lambda: all_sent(fleet), within=30 + BACKLOG / 200, every=0.5, what="all refusals sent")
        took = await seconds_between_first_and_last(fleet)
        reserved = await fleet.look("inventory", count_reservations)
        memory = inventory.megabytes()
    finally:
        await fleet.stop()

    assert reserved == 0
    print(f"{BACKLOG} events, {BACKLOG / took:.0f} a second, {memory:.0f} MiB at most")  # noqa: T201 -- the result of a run
    assert BACKLOG / took > DRAIN_RATE
    assert memory < ENOUGH_MEGABYTES


async def place_long_ago(settings: Settings, placed: list[OrderCreated]) -> None:
    """Send orders that are an hour old by their headers."""
    async with RabbitPublisher(settings) as publisher:
        for start in range(0, len(placed), _AT_ONCE):
            some = placed[start : start + _AT_ONCE]
            errors = await publisher.publish_many([(an_hour_old(order), None) for order in some])
            assert not any(errors)


def an_hour_old(order: OrderCreated) -> WireMessage:
    envelope = Envelope(
        event_id=new_id(),
        event_type="OrderCreated",
        version=1,
        saga_id=order.order_id,
        saga_type="order",
        occurred_at=datetime.now(UTC) - timedelta(hours=1),
    )
    return envelope.carry(order)


async def all_refused(fleet: Fleet) -> bool:
    query = "SELECT count(*) FROM saga_log WHERE to_state = 'failed'"
    return await fleet.look("inventory", lambda connection: connection.scalar(text(query))) == BACKLOG


async def count_reservations(connection: AsyncConnection) -> int:
    return int(await connection.scalar(select(func.count()).select_from(Reservation)) or 0)


async def all_sent(fleet: Fleet) -> bool:
    return not await fleet.waiting_rows("inventory")


async def seconds_between_first_and_last(fleet: Fleet) -> float:
    query = "SELECT at FROM saga_log WHERE position IS NOT NULL ORDER BY id {} LIMIT 1"

    async def moment(order: str) -> datetime:
        found = await fleet.look("inventory", lambda connection: connection.scalar(text(query.format(order))))
        return datetime.fromisoformat(str(found))

    return (await moment("DESC") - await moment("ASC")).total_seconds()
