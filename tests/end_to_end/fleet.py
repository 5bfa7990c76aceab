"""The four services as real processes, started by `saga run`, killed by SIGKILL, and checked by their tables."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

import aio_pika

from tests.end_to_end.breakable import free_port
from tests.end_to_end.fleet_tables import FleetTables
from tests.end_to_end.placed_orders import SERVICES
from tests.end_to_end.replica import Replica
from tests.eventually import eventually
from toolkit import Event, Settings
from toolkit.client.account_checks import AccountCheck
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

T = TypeVar("T")


class Fleet(FleetTables):
    """Processes of the four services on one exchange, each with its database.

    - `through`: returns a server's URL for a service, through a proxy; the test itself bypasses the proxy.
    - `references`: the `module:attribute` that `saga run` runs as a service; by default the service of that name.
    - `checks`: what has to add up beside the logs; by default the order's goods and money.
    - `log`: the file for the processes' output; by default the test's own output.
    """

    def __init__(
        self,
        settings: Settings,
        databases: dict[str, str],
        *,
        through: Callable[[str, str], str] = lambda _, url: url,
        environment: Mapping[str, str] | None = None,
        references: Mapping[str, str] | None = None,
        checks: Sequence[AccountCheck] | None = None,
        log: IO[bytes] | None = None,
    ) -> None:
        super().__init__(settings, databases, references=references or {}, checks=checks)
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
        """Start a process of a service, with these changes of its environment, without waiting for it."""
        port = free_port()
        replica = Replica(name, port, await self._spawn(name, port, changes))
        self.replicas.append(replica)
        return replica

    def running(self, name: str) -> list[Replica]:
        """Return the processes of a service."""
        return [each for each in self.replicas if each.name == name]

    def oldest(self, name: str) -> Replica:
        """Return the oldest process of a service, and remove it from the replicas."""
        replica = next(each for each in self.replicas if each.name == name)
        self.replicas.remove(replica)
        return replica

    async def kill(self, name: str) -> None:
        """Kill the oldest process of a service, as a power cut does."""
        await self.oldest(name).kill()

    async def terminate(self) -> list[int | None]:
        """Stop all processes within ten seconds, and return their exit codes."""
        codes = await asyncio.gather(*(replica.terminate() for replica in self.replicas))
        self.replicas.clear()
        return codes

    async def stop(self) -> None:
        """Stop all processes, and delete their queues and exchanges."""
        await self.terminate()
        await self.close()
        await self._sweep()

    async def place(self, placed: Sequence[Event], *, saga_id: str | None = None) -> None:
        """Send events as a plain client, with a routing key and a body; only starting events need no saga's id."""
        async with RabbitPublisher(self.settings) as publisher:
            keys = [f"{event.__owner__}.{type(event).__name__}" for event in placed]
            wires = [
                WireMessage(event.model_dump_json().encode(), key, correlation_id=saga_id)
                for event, key in zip(placed, keys, strict=True)
            ]
            await asyncio.gather(*(publisher.publish(wire) for wire in wires))

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
            for name in self.databases:
                await channel.queue_delete(f"{self.settings.exchange}.{name}")
                await channel.queue_delete(f"{self.settings.exchange}.{name}.dead")
                await channel.exchange_delete(f"{self.settings.exchange}.{name}")
            await channel.exchange_delete(self.settings.exchange)
            await channel.exchange_delete(f"{self.settings.exchange}.dead")


def sqlite_databases(data_dir: Path, names: Iterable[str] = SERVICES) -> dict[str, str]:
    """Return a file for each service."""
    return {name: f"sqlite:///{data_dir / name}.db" for name in names}
