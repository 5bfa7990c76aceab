"""The four services as real processes, started by `saga run`, killed by SIGKILL, judged by their tables alone."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import aio_pika
import httpx
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts import money_adds_up, paid_as_ended, reserved_as_ended, stock_adds_up
from services.events import OrderCreated
from services.payment.gateway import open_gateway
from tests.end_to_end.breakable import free_port
from tests.eventually import eventually
from toolkit import Settings
from toolkit.client.database_client import DatabaseClient
from toolkit.client.verification import verify
from toolkit.declaration.events import documented_example
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import outbox, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import is_outage
from toolkit.transport.rabbitmq.endpoints import RabbitPublisher

T = TypeVar("T")

SERVICES = ("inventory", "payment", "shipping", "notification")

#: For fleets that are to bear outages: no step refuses because one took long, so that every order's end is known.
PATIENT = {
    "SAGA_STEP_TIMEOUTS": json.dumps(
        dict.fromkeys(("reserve_inventory", "process_payment", "create_shipment", "send_confirmation"), "PT2H")
    )
}

#: Which order goes which way: seven of ten are fulfilled, the others refused at payment, shipping and notification.
_PLOTS: tuple[dict[str, object], ...] = (
    *[{}] * 7,
    {"payment_method": "card_declined"},
    {"shipping_address": documented_example(OrderCreated)["shipping_address"] | {"country": "AQ"}},
    {"customer_email": "nobody@bounce.example"},
)


def orders(count: int) -> list[OrderCreated]:
    """Return so many orders, three of ten bound to fail."""
    mark = new_id()[-12:]
    example = documented_example(OrderCreated)
    return [
        OrderCreated.model_validate(example | {"order_id": f"order-{mark}-{number}"} | _PLOTS[number % len(_PLOTS)])
        for number in range(count)
    ]


def is_bound_to_fail(order: OrderCreated) -> bool:
    """Whether one of the services refuses the order."""
    return (
        order.payment_method != "card_ok"
        or order.shipping_address.country == "AQ"
        or order.customer_email.endswith("bounce.example")
    )


@dataclass(eq=False, slots=True)
class Replica:
    """One process of a service."""

    name: str
    port: int
    process: asyncio.subprocess.Process

    async def readiness(self) -> dict[str, bool]:
        """Return what `/readyz` says of each part; nothing where there is no answer."""
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                return dict((await client.get(f"http://127.0.0.1:{self.port}/readyz", timeout=4)).json())
        except httpx.TransportError:
            return {}

    async def is_alive(self) -> bool:
        """Whether it answers at all."""
        return bool(await self.readiness())

    async def is_ready(self) -> bool:
        """Whether it has all that it needs."""
        parts = await self.readiness()
        return bool(parts) and all(parts.values())

    def megabytes(self) -> float:
        """Return the most memory that it has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024

    async def kill(self) -> None:
        """End it at once, as a power cut does."""
        with suppress(ProcessLookupError):  # it may just have ended by itself
            self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int | None:
        """Ask it to stop, and return its exit code; it has ten seconds, and is killed if it needs more."""
        with suppress(ProcessLookupError):  # it may just have ended by itself
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), 10)
        except TimeoutError:
            await self.kill()
        return self.process.returncode


class Fleet:
    """Processes of the four services on one exchange, each with its database.

    `through` turns a server's URL into the one that this service is told: the test itself looks past a proxy.
    `references` names what `saga run` runs as a service, `module:attribute`; without one, the service of that name.
    `log` is the file that the processes write to, instead of this one's own output.
    """

    def __init__(
        self,
        settings: Settings,
        databases: dict[str, str],
        *,
        through: Callable[[str, str], str] = lambda _, url: url,
        environment: Mapping[str, str] | None = None,
        references: Mapping[str, str] | None = None,
        log: IO[bytes] | None = None,
    ) -> None:
        self.settings = settings
        self.references = dict(references or {})
        self.databases = {name: Database(databases[name]) for name in SERVICES}
        self.clients = {name: DatabaseClient(name, databases[name]) for name in SERVICES}
        self.replicas: list[Replica] = []
        self._log = log
        self._through = through
        self._environment = environment or {}

    async def start(self, *names: str) -> list[Replica]:
        """Start a process of each of these services, and wait until they are ready."""
        started = [await self.launch(name) for name in names]
        for replica in started:
            await eventually(replica.is_ready, what=f"{replica.name} ready", within=90)
        return started

    async def launch(self, name: str, **changes: str) -> Replica:
        """Start a process of a service, with these changes of its environment, and wait for nothing."""
        port = free_port()
        replica = Replica(name, port, await self._spawn(name, port, changes))
        self.replicas.append(replica)
        return replica

    def running(self, name: str) -> list[Replica]:
        """Return the processes of a service."""
        return [each for each in self.replicas if each.name == name]

    def oldest(self, name: str) -> Replica:
        """Return the process of a service that has run longest, and count it no more."""
        replica = next(each for each in self.replicas if each.name == name)
        self.replicas.remove(replica)
        return replica

    async def kill(self, name: str) -> None:
        """End the oldest process of a service at once, as a power cut does."""
        await self.oldest(name).kill()

    async def terminate(self) -> list[int | None]:
        """Ask all processes to stop, and return their exit codes; they have ten seconds."""
        codes = await asyncio.gather(*(replica.terminate() for replica in self.replicas))
        self.replicas.clear()
        return codes

    async def stop(self) -> None:
        """Stop all processes, and remove what they made on the broker."""
        await self.terminate()
        await self.close()
        await self._sweep()

    async def close(self) -> None:
        """Let go of the databases."""
        for each in (*self.databases.values(), *self.clients.values()):
            await each.close()

    async def place(self, placed: Sequence[OrderCreated]) -> None:
        """Send orders as a client does that knows no more than the routing key and the body."""
        async with RabbitPublisher(self.settings) as publisher:
            wires = [WireMessage(order.model_dump_json().encode(), "order.OrderCreated") for order in placed]
            await asyncio.gather(*(publisher.publish(wire) for wire in wires))

    async def moved(self) -> int:
        """Return how many sagas the payment service has seen."""
        return len(await self._sagas("payment"))

    async def ended(self) -> Counter[str]:
        """Return how many sagas ended in which way, as the notification service knows."""
        return Counter(each["state"] for each in await self._sagas("notification"))

    async def all_ended(self, placed: Sequence[OrderCreated], *, within: float = 60) -> None:
        """Wait until each order ended as it should, and nothing is under way any more."""
        failed = sum(map(is_bound_to_fail, placed))
        due = Counter({"Completed": len(placed) - failed, "Failed": failed})

        async def as_due() -> bool:
            return await self.ended() == due and await self.is_at_rest()

        try:
            await eventually(as_due, within=within, every=0.2, what=f"{due}")
        except AssertionError as error:
            raise AssertionError(f"due {due}, came {await self.ended()}") from error

    async def adds_up(self, placed: Sequence[OrderCreated]) -> list[str]:
        """Return what does not add up in stock and money, and which steps were done twice."""
        fulfilled = [order for order in placed if not is_bound_to_fail(order)]
        async with open_gateway(self.settings) as gateway:
            checks = [
                await stock_adds_up(self.databases["inventory"], fulfilled),
                await money_adds_up(gateway, fulfilled),
            ]
        return [f"{check.claim}: {check.found}" for check in checks if not check.holds]

    async def violations(self) -> list[str]:
        """Return what `saga verify` finds wrong, or can't look at, in all sagas, goods, money, outboxes and queues."""
        checks = [reserved_as_ended, partial(paid_as_ended, settings=self.settings)]
        report = await verify(list(self.clients.values()), checks=checks, broker=self.settings)
        found = [f"{each.invariant}: {each.saga_id or 'all'}: {each.text}" for each in report.violations]
        return [*found, *report.unchecked, *report.unreachable.values()]

    async def verified(self, *, within: float = 20) -> list[str]:
        """Return what is wrong for good: who is told of an end last may still be writing it down."""
        until = time.monotonic() + within
        while found := await self.violations():
            if time.monotonic() > until:
                break
            await asyncio.sleep(0.1)
        return found

    async def waiting_rows(self, name: str) -> int:
        """Return how many rows wait in a service's outbox."""
        return await self.look(name, outbox.count)

    async def is_at_rest(self) -> bool:
        """Whether no service has anything left to send."""
        return not sum([await self.waiting_rows(name) for name in SERVICES])

    async def _sagas(self, name: str) -> list[dict[str, Any]]:
        return await self.look(name, lambda connection: saga_log_queries.sagas(connection, limit=10_000))

    async def look(self, name: str, look: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Look into a service's database, again where a fault of the test's own has cut the look short."""
        while True:
            try:
                async with self.databases[name].reading() as connection:
                    return await look(connection)
            except Exception as error:
                if not is_outage(error):
                    raise
                await asyncio.sleep(0.1)

    async def _spawn(self, name: str, port: int, changes: Mapping[str, str]) -> asyncio.subprocess.Process:
        environment = os.environ | {
            "SAGA_BROKER_URL": self._through(name, self.settings.broker_url),
            "SAGA_EXCHANGE": self.settings.exchange,
            "SAGA_DATA_DIR": str(self.settings.data_dir),
            "SAGA_DATABASE_URL": self._through(name, self.databases[name].url),
            "SAGA_HTTP_PORT": str(port),
            "SAGA_RELAY_LEASE": "2",
            "SAGA_LOG_LEVEL": "warning",
            **self._environment,
            **changes,
        }
        command = (sys.executable, "-m", "toolkit.cli", "run", self.references.get(name, name))
        return await asyncio.create_subprocess_exec(*command, env=environment, stdout=self._log, stderr=self._log)

    async def _sweep(self) -> None:
        connection = await aio_pika.connect(self.settings.broker_url)
        async with connection, connection.channel() as channel:
            for name in SERVICES:
                await channel.queue_delete(f"{self.settings.exchange}.{name}")
                await channel.queue_delete(f"{self.settings.exchange}.{name}.dead")
                await channel.exchange_delete(f"{self.settings.exchange}.{name}")
            await channel.exchange_delete(self.settings.exchange)
            await channel.exchange_delete(f"{self.settings.exchange}.dead")


def sqlite_databases(data_dir: Path) -> dict[str, str]:
    """Return a file for each service."""
    return {name: f"sqlite:///{data_dir / name}.db" for name in SERVICES}
