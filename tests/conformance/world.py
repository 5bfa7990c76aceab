"""The trip's three services on one transport and one database, and a test's queries about them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aio_pika
from aiormq.exceptions import AMQPError
from sqlalchemy import text

from tests.eventually import eventually
from tests.example_sagas.travel import Script, TripRequested, services, trip_saga
from toolkit import Event, Service, Settings
from toolkit.app import App
from toolkit.configuration.settings import queue_name
from toolkit.ids import derived_id, new_id
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.persistence import dead_letter_queries, outbox, saga_log_queries
from toolkit.protocol.dead_letter_rows import WholeDeadLetter
from toolkit.protocol.log_entry import LogEntry
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.transport.embedded import Embedded
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

DatabaseOf = Callable[[str], Awaitable[str | None]]
#: Returns the services to run, which act by a script.
Declare = Callable[[Script], list[Service]]


#: The services' lease is short here, and a client's confirm timeout is a share of it; a busy machine takes longer.
_CLIENTS_LEASE = timedelta(seconds=20)


def message(event: Event, trip_id: str, *, saga_type: str = "trip", **facts: Any) -> WireMessage:
    """Return an event of a trip as a participant sends it."""
    kind = type(event).__name__
    known = {"event_id": derived_id(saga_type, trip_id, kind), "event_type": kind, "version": event.__version__}
    envelope = Envelope(saga_id=trip_id, saga_type=saga_type, **(known | {"occurred_at": datetime.now(UTC)} | facts))
    return envelope.carry(event)


class World(ABC):
    """What both transports have in common."""

    def __init__(self, settings: Settings, declare: Declare = services) -> None:
        self.settings = settings
        self.script = Script()
        self.services = declare(self.script)

    runtimes: dict[str, ServiceRuntime]

    @abstractmethod
    async def start(self) -> None:
        """Start the services, or restart them."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop them gracefully."""

    @abstractmethod
    async def send(self, wire: WireMessage) -> None:
        """Publish a message as a client."""

    async def waiting(self) -> int:
        """Return how many messages are on their way between the services."""
        return 0

    async def request(self, trip_id: str = "", **facts: Any) -> str:
        """Start a trip and return its id."""
        trip_id = trip_id or f"trip-{new_id()[-12:]}"
        await self.send(message(TripRequested(trip_id=trip_id), trip_id, **facts))
        return trip_id

    async def quiet(self) -> None:
        """Wait until all is idle: no outbox row, no waiting message, no batch in progress."""
        calm_checks = 0

        async def is_quiet() -> bool:
            nonlocal calm_checks
            idle = all(runtime.batcher.is_idle for runtime in self.runtimes.values())
            calm_checks = calm_checks + 1 if idle and not await self.waiting() and not await self.outgoing() else 0
            return calm_checks >= 5

        await eventually(is_quiet, within=60, what="quiet")

    async def outgoing(self) -> int:
        """Return how many outbox rows there are."""
        total = 0
        for runtime in self.runtimes.values():
            async with runtime.database.reading() as connection:
                total += await outbox.count(connection)
        return total

    async def own(self, service: str) -> int:
        """Return how many outbox rows a service has addressed to itself."""
        query = text("SELECT count(*) FROM saga_outbox WHERE destination IS NOT NULL")
        async with self.runtimes[service].database.reading() as connection:
            return int(await connection.scalar(query) or 0)

    async def log(self, service: str, trip_id: str | None = None, saga_type: str | None = None) -> list[LogEntry]:
        """Return a service's log: all of it, or of one trip, or of a saga of another type."""
        async with self.runtimes[service].database.reading() as connection:
            return await saga_log_queries.entries(connection, saga_id=trip_id, saga_type=saga_type)

    async def states(self, service: str, trip_id: str, saga_type: str | None = None) -> list[str]:
        """Return the states that a service's steps went through, notes left out."""
        return [entry.to_state for entry in await self.log(service, trip_id, saga_type) if entry.position]

    async def notes(self, service: str, trip_id: str, saga_type: str | None = None) -> list[str]:
        """Return the notes of a service on a trip."""
        return [entry.to_state for entry in await self.log(service, trip_id, saga_type) if not entry.position]

    async def effects(self, service: str, trip_id: str) -> list[str]:
        """Return the committed effects of a service's steps."""
        query = text("SELECT what FROM effects WHERE trip_id = :trip ORDER BY id")
        async with self.runtimes[service].database.reading() as connection:
            return list((await connection.execute(query, {"trip": trip_id})).scalars())

    async def dead_letters(self, service: str) -> list[WholeDeadLetter]:
        """Return a service's dead letters."""
        async with self.runtimes[service].database.reading() as connection:
            return await dead_letter_queries.listed(connection)

    async def state(self, trip_id: str, saga_type: str | None = None) -> str | None:
        """Return how the trip ended, from the desk's log."""
        ended = [entry.saga_state for entry in await self.log("desk", trip_id, saga_type)]
        return next((state for state in ("Completed", "Failed") if state in ended), None)


class EmbeddedWorld(World):
    """One process, no broker."""

    async def start(self) -> None:
        self._embedded = Embedded(self.services, self.settings)
        self.runtimes = self._embedded.runtimes
        await self._embedded.__aenter__()

    async def stop(self) -> None:
        await self._embedded.__aexit__(None, None, None)

    async def send(self, wire: WireMessage) -> None:
        await self._embedded.publish(wire)


class RabbitWorld(World):
    """RabbitMQ, and one database for each service."""

    def __init__(self, settings: Settings, database_of: DatabaseOf, declare: Declare = services) -> None:
        super().__init__(settings, declare)
        self._database_of = database_of

    async def start(self) -> None:
        self.apps = [await self.app(service.name) for service in self.services]
        self.runtimes = {app.service.name: app.runtime for app in self.apps}
        await asyncio.gather(*(app.start() for app in self.apps))
        self._client = await RabbitPublisher(
            self.settings.model_copy(update={"relay_lease": _CLIENTS_LEASE})
        ).__aenter__()
        self._connection = await aio_pika.connect(self.settings.broker_url)

    async def app(self, name: str) -> App:
        """Return one more replica of a service."""
        service = next(each for each in self.services if each.name == name)
        url = await self._database_of(name)
        return App(service, self.settings.model_copy(update={"database_url": url}))

    @asynccontextmanager
    async def replica(self, name: str) -> AsyncIterator[App]:
        """Run one more replica of a service within the block."""
        app = await self.app(name)
        await app.start()
        try:
            yield app
        finally:
            await app.stop()

    async def stop(self) -> None:
        await asyncio.gather(*(app.stop() for app in self.apps))
        await self._client.close()
        await self._connection.close()

    async def send(self, wire: WireMessage) -> None:
        await self._client.publish(wire)

    async def post(self, wire: WireMessage, *, to: str) -> None:
        """Publish a message to one queue, past the event exchange."""
        await self._client.publish(wire, destination=to)

    async def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue."""
        async with self._connection.channel() as channel:
            return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0

    async def waiting(self) -> int:
        async with self._connection.channel() as channel:
            names = [queue_name(self.settings, service.name) for service in self.services]
            queues = [await channel.declare_queue(name, passive=True) for name in names]
            total = sum(queue.declaration_result.message_count or 0 for queue in queues)
        await self._deliveries_have_arrived()
        return total

    async def _deliveries_have_arrived(self) -> None:
        """Make one request on each consuming channel: earlier deliveries arrive before its response."""
        consumers = [app._consumer._queue_consumer for app in self.apps if app._consumer]
        channels = [each._consuming_on for each in consumers if each and each._consuming_on]
        for channel in channels:
            with suppress(AMQPError, ConnectionError):  # it was closed just now: its messages are in the queue again
                await channel.basic_cancel("no such tag")  # no consumer has this tag, so that none ends

    async def sweep(self) -> None:
        """Delete the test's queues and exchanges."""
        connection = await aio_pika.connect(self.settings.broker_url)
        async with connection, connection.channel() as channel:
            for service in self.services:
                name = queue_name(self.settings, service.name)
                await channel.queue_delete(name)
                await channel.queue_delete(f"{name}.dead")
                await channel.exchange_delete(name)
            await channel.exchange_delete(self.settings.exchange)
            await channel.exchange_delete(f"{self.settings.exchange}.dead")


def settings_for(data_dir: Path, **facts: Any) -> Settings:
    """Return settings with short waits."""
    quick = {
        "relay_poll": timedelta(milliseconds=200),
        "relay_lease": timedelta(seconds=1),
        "watch_every": timedelta(seconds=1),
        "nudge_every": timedelta(milliseconds=300),
    }
    return Settings(data_dir=data_dir, **(quick | facts))


__all__ = ["EmbeddedWorld", "RabbitWorld", "World", "message", "settings_for", "trip_saga"]
