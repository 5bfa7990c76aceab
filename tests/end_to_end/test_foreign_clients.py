"""A client in another language, or with another library, starts a saga: a routing key and a body suffice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pika

from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.placed_orders import SERVICES, orders
from tests.servers import Server
from toolkit import Settings


async def test_pika_starts_a_saga(rabbitmq: Server, tmp_path: Path, prefix: str) -> None:
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
    fleet = Fleet(settings, sqlite_databases(tmp_path))
    await fleet.start(*SERVICES)
    (order,) = orders(1)

    await asyncio.to_thread(_send, rabbitmq.url, prefix, order.model_dump_json().encode())
    await fleet.all_ended([order])

    assert await fleet.adds_up([order]) == []
    await fleet.stop()


def _send(url: str, exchange: str, body: bytes) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().basic_publish(exchange=exchange, routing_key="order.OrderCreated", body=body)
    connection.close()
