"""The world that chaos befalls: two replicas of each service, servers of its own, and a proxy between all of them.

The payment provider's ledger lies in a database of its own, which is left alone: it stands for somebody else's
company. If it failed with ours, an order's outcome would be a matter of luck, and nobody could say what is due.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import text

from services.events import OrderCreated
from tests.conftest import PostgresDatabases
from tests.end_to_end.breakable import Breakable, OwnServer, breakable, own_server
from tests.end_to_end.fleet import PATIENT, SERVICES, Fleet, Replica
from tests.end_to_end.proxy import Proxy
from tests.eventually import eventually
from tests.servers import POSTGRESQL, RABBITMQ
from toolkit import Settings
from toolkit.envelope import WireMessage
from toolkit.ids import new_id
from toolkit.rabbit import RabbitPublisher

#: Thousands of processes' warnings are of no use to anybody.
_QUIET = {"SAGA_LOG_LEVEL": "error", "SAGA_LOG_FORMAT": "json"}


@dataclass(frozen=True, slots=True)
class Servers:
    """The broker, the services' database, and the provider's."""

    broker: OwnServer
    database: OwnServer
    provider: OwnServer


@contextmanager
def servers() -> Iterator[Servers]:
    """Start the servers, each on a port of its own."""
    with ExitStack() as stack:
        yield Servers(*(stack.enter_context(own_server(kind)) for kind in (RABBITMQ, POSTGRESQL, POSTGRESQL)))


@dataclass(slots=True)
class World:
    """The fleet, and what can be done to it."""

    fleet: Fleet
    broker: Breakable
    database: Breakable
    #: The way from each service to the broker, where each has one of its own.
    ways: dict[str, Proxy]
    placed: list[OrderCreated] = field(default_factory=list)
    placed_at: dict[str, float] = field(default_factory=dict)

    async def place(self, orders: Sequence[OrderCreated], *, rate: float) -> None:
        """Send orders at a steady rate, each again until the broker confirms it, as a client must."""
        loop = asyncio.get_running_loop()
        async with RabbitPublisher(self.fleet.settings) as publisher, asyncio.TaskGroup() as tasks:
            begun = loop.time()
            for number, order in enumerate(orders):
                await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))  # the rate
                tasks.create_task(self._place(publisher, order))

    async def _place(self, publisher: RabbitPublisher, order: OrderCreated) -> None:
        self.placed_at[order.order_id] = datetime.now().astimezone().timestamp()
        while True:
            try:
                await publisher.publish(WireMessage(order.model_dump_json().encode(), "order.OrderCreated"))
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) and task.cancelling():
                    raise
            except Exception:  # noqa: BLE001 -- whatever kept the broker from confirming, the client sends it again
                await asyncio.sleep(0.5)
            else:
                self.placed.append(order)
                return

    async def take(self, name: str) -> Replica:
        """Take a running process of a service, as soon as there is one that nobody else has taken."""

        async def one() -> Replica | None:
            return self.fleet.oldest(name) if self.fleet.running(name) else None

        taken = await eventually(one, within=120, what=f"a running process of {name}")
        assert taken is not None
        return taken

    async def ends(self) -> dict[str, tuple[str, float]]:
        """Return how each saga ended, and when, as the service that ends them wrote it."""
        query = "SELECT saga_id, saga_state, at FROM saga_log WHERE emitted_type IN ('OrderFulfilled', 'OrderFailed')"
        rows = await self.rows("notification", query)
        return {row["saga_id"]: (row["saga_state"], row["at"].timestamp()) for row in rows}

    async def count_ended(self) -> int:
        """Return how many sagas have ended."""
        query = "SELECT count(*) AS ended FROM saga_log WHERE emitted_type IN ('OrderFulfilled', 'OrderFailed')"
        return int((await self.rows("notification", query))[0]["ended"])

    async def rows(self, name: str, query: str) -> list[dict[str, Any]]:
        """Ask a service's database, past all faults."""

        async def ask(connection: Any) -> list[dict[str, Any]]:
            return [dict(row) for row in (await connection.execute(text(query))).mappings()]

        return await self.fleet.look(name, ask)

    async def converged(self, *, within: float) -> list[str]:
        """Wait until `saga verify` finds nothing to complain of, and return what it still does after so long."""
        found: list[str] = []

        async def is_right() -> bool:
            nonlocal found
            if await self.count_ended() < len(self.placed) or not await self.fleet.is_at_rest():
                found = [f"{len(self.placed)} orders placed, {await self.count_ended()} ended"]
                return False
            found = await self.fleet.violations()
            return not found

        try:
            await eventually(is_right, within=within, every=1.0, what="a right end")
        except AssertionError:
            return found
        return []


@asynccontextmanager
async def world(
    servers: Servers, *, replicas: int = 2, own_ways: bool = False, **environment: str
) -> AsyncIterator[World]:
    """Start the services behind their proxies, and remove all that they made afterwards."""
    async with AsyncExitStack() as stack:
        data_dir = Path(stack.enter_context(TemporaryDirectory(prefix="saga-chaos-")))
        databases, provider = PostgresDatabases(servers.database.url), PostgresDatabases(servers.provider.url)
        stack.push_async_callback(databases.drop)
        stack.push_async_callback(provider.drop)
        stack.enter_context(_environment("PAYMENT_GATEWAY_URL", await provider.url("gateway")))
        broker = await stack.enter_async_context(breakable(servers.broker))
        database = await stack.enter_async_context(breakable(servers.database))
        ways = {
            name: await stack.enter_async_context(Proxy(servers.broker.url)) if own_ways else broker.proxy
            for name in SERVICES
        }
        settings = Settings(broker_url=broker.url, exchange=f"chaos-{new_id()[-12:]}", data_dir=data_dir)
        fleet = Fleet(
            settings,
            {name: await databases.url(name) for name in SERVICES},
            through=lambda name, url: ways[name].through(database.proxy.through(url)),
            environment=PATIENT | _QUIET | environment,
        )
        stack.push_async_callback(fleet.stop)
        for proxy in (database.proxy, broker.proxy, *ways.values()):
            stack.callback(proxy.heal)
        await fleet.start(*SERVICES * replicas)
        yield World(fleet, broker, database, ways)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable for this process and those that it starts."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
