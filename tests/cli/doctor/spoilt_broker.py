"""A RabbitMQ container of the doctor's tests, and how they misconfigure it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aio_pika
import httpx

from services.payment.app import app as payment
from tests.servers import RABBITMQ, container_for, wait_for_answer
from toolkit import Settings
from toolkit.declaration.events import routing_key
from toolkit.messaging.envelope import CONTROL_EVENTS
from toolkit.transport.rabbitmq.topology import declared_queues

LOGIN = ("ada", "hush-hush")
MANAGEMENT_PORT = 15672
KEYS = sorted(map(routing_key, (*payment.consumed(), *CONTROL_EVENTS)))


@dataclass(frozen=True)
class Broker:
    """A RabbitMQ of these tests' own, whose settings they may change."""

    host: str
    port: int
    management: str
    container: Any

    def url(self, login: str = LOGIN[0], password: str = LOGIN[1], host: str | None = None) -> str:
        return f"amqp://{login}:{password}@{host or self.host}:{self.port}/"

    def call(self, method: str, path: str, content: Any = None) -> None:
        with httpx.Client(base_url=self.management, auth=LOGIN, trust_env=False) as client:
            client.request(method, f"/api/{path}", json=content).raise_for_status()

    def control(self, *arguments: str) -> None:
        done = self.container.exec(["rabbitmqctl", "-q", *arguments])
        assert done.exit_code == 0, done.output


@contextmanager
def started() -> Iterator[Broker]:
    """Start the container, and wait until it answers."""
    container = container_for(RABBITMQ).with_exposed_ports(RABBITMQ.port, MANAGEMENT_PORT)
    container.with_env("RABBITMQ_DEFAULT_USER", LOGIN[0]).with_env("RABBITMQ_DEFAULT_PASS", LOGIN[1])
    with container:
        host = container.get_container_host_ip()
        port, management = (int(container.get_exposed_port(each)) for each in (RABBITMQ.port, MANAGEMENT_PORT))
        wait_for_answer(RABBITMQ, host, port)
        found = Broker(host, port, f"http://{host}:{management}", container)
        wait_for_management(found)
        yield found


def wait_for_management(broker: Broker) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            return broker.call("GET", "overview")
        except httpx.HTTPError:
            assert time.monotonic() < until, "the management API did not come"
            time.sleep(0.1)


async def sweep(url: str, exchange: str) -> None:
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        for queue in (f"{exchange}.payment", f"{exchange}.payment.dead", f"{exchange}.tap"):
            await channel.queue_delete(queue)
        for each in (exchange, f"{exchange}.dead", f"{exchange}.payment", f"{exchange}.unheard"):
            await channel.exchange_delete(each)


def declare(broker: Broker, exchange: str, *, without: str = "", kind: str = "topic", **changes: Any) -> None:
    """Declare what payment does, with these changes of its queue's arguments; None leaves one out."""
    asyncio.run(
        _declare(broker.url(), exchange, without, kind, {f"x-{k.replace('_', '-')}": v for k, v in changes.items()})
    )


async def _declare(url: str, exchange: str, without: str, kind: str, changes: dict[str, Any]) -> None:
    queue, dead_queue = declared_queues(Settings(exchange=exchange), "payment")
    arguments = {name: value for name, value in ((queue.arguments or {}) | changes).items() if value is not None}
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        main = await channel.declare_exchange(exchange, kind, durable=True)
        dead = await channel.declare_exchange(f"{exchange}.dead", "topic", durable=True)
        its_queue = await channel.declare_queue(queue.name, durable=True, arguments=arguments)
        its_dead = await channel.declare_queue(dead_queue.name, durable=True, arguments=dead_queue.arguments)
        await its_dead.bind(dead, routing_key=queue.name)
        own = await channel.declare_exchange(queue.name, "fanout", durable=True)
        if without != queue.name:
            await its_queue.bind(own, routing_key="")
        for key in KEYS:
            if key != without:
                await its_queue.bind(main, routing_key=key)


def add_login(broker: Broker, name: str, password: str = "hush-hush", *, configure: str = ".*", write: str) -> None:
    broker.call("PUT", f"users/{name}", {"password": password, "tags": "monitoring"})
    broker.call("PUT", f"permissions/%2F/{name}", {"configure": configure, "write": write, "read": ".*"})
