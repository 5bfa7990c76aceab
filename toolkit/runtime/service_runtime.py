"""The runtime of one service: its database, batcher, relay and loops, wired between one way in and one way out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.contextvars import bound_contextvars
from tenacity import AsyncRetrying

from toolkit import failpoints
from toolkit.clock import Clock
from toolkit.configuration.settings import EMBEDDED, Settings, queue_name
from toolkit.declaration.contract import coordinators_of
from toolkit.declaration.service import Service
from toolkit.errors import describe
from toolkit.foreign_code.containment import contain, contained
from toolkit.messaging.decoding import Decoder
from toolkit.messaging.senders import Senders
from toolkit.observability.broker_attributes import Broker
from toolkit.observability.metrics import Meter
from toolkit.observability.tracing import tracing_for
from toolkit.persistence import dead_letters
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import complain
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.runtime import running
from toolkit.runtime.background_loops import Loops
from toolkit.runtime.batcher import Batcher
from toolkit.runtime.database_setup import PATIENCE, DatabaseSetup
from toolkit.runtime.delivery import Delivery
from toolkit.runtime.executor import Executor
from toolkit.runtime.external_calls import ExternalCalls
from toolkit.runtime.invocation import Invocation
from toolkit.runtime.poison_isolation import PoisonIsolation
from toolkit.runtime.pruner import Pruner
from toolkit.runtime.quarantine import Quarantine
from toolkit.runtime.relay import Publisher, Relay
from toolkit.runtime.watchdog import Watchdog

log = structlog.get_logger("toolkit")

#: A dead letter that can't be kept is logged once in so many tries: about once a minute.
_SILENT_TRIES = 30
#: Seconds for the running transactions when the service stops, and for closing the connections.
_LAST_TRANSACTION, _FAREWELL = 1.0, 0.5


class ServiceRuntime:
    """Runs one service on its database; a transport's publisher is its way out.

    Services that share a process share the quarantine of the messages that were in hand when one ended. `database`: the
    one that the settings name, where it is open already. `engine`: a team's own engine of the service's database, in
    place of SAGA_DATABASE_URL; the runtime leaves it open.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        publisher: Publisher,
        *,
        clock: Clock,
        quarantine: Quarantine | None = None,
        database: Database | None = None,
        engine: AsyncEngine | None = None,
    ) -> None:
        failpoints.prepare(event.__name__ for event in service.compensation_events())
        self.service = service
        self.settings = settings
        self.queue = queue_name(settings, service.name)
        self.database = database or _open_database(service, settings, engine)
        self.tracing = tracing_for(service.name, Broker.of(settings))
        self._meter = Meter(service)
        self.publisher = publisher
        self.clock = clock
        self._quarantine = quarantine or Quarantine()
        self._resources = AsyncExitStack()
        self.former_steps: frozenset[tuple[str, str]] = frozenset()
        self.loops = Loops(service.name)

    async def start(self) -> None:
        """Prepare, and begin to work."""
        await self.prepare()
        self.begin()

    async def prepare(self) -> None:
        """Wait for the database, make the tables, and open the resources of the steps."""
        service, settings, database = self.service, self.settings, self.database
        self.former_steps = await DatabaseSetup(service, settings, database).prepare()
        self.decoder = _build_decoder(self)
        self.relay = _build_relay(self)
        self.batcher = _build_batcher(self, await self._open_resources())
        self.poison_isolation = PoisonIsolation(
            service.name,
            database,
            deliver=self.batcher.deliver,
            dead_letter=self.dead_letter,
            quarantine=self._quarantine,
        )
        await self.poison_isolation.prepare()
        self.watchdog = Watchdog(service, settings, database=database, relay=self.relay, clock=self.clock)
        self.pruner = Pruner(service.name, settings, database=database, clock=self.clock)

    @property
    def is_recording(self) -> bool:
        """Whether the database took the service's last writes."""
        return not self.loops.tasks or (self.batcher.is_healthy and self.watchdog.is_healthy)

    def begin(self) -> None:
        """Work until `stop`."""
        with bound_contextvars(service=self.service.name):  # each task keeps the variables that are bound now
            self.loops.begin("relay", self.relay.run())
            self.loops.begin("batcher", self.batcher.run())
            self.loops.begin("watchdog", self.watchdog.run())
            self.loops.begin("pruner", self.pruner.run())
        running.begin(self)

    def accept(self, deliveries: Sequence[Delivery]) -> None:
        """Enqueue deliveries; their source settles each when its transaction has committed."""
        isolation = self.poison_isolation
        for each in deliveries:
            if each.is_redelivered:
                isolation.begin(each)
        for each in deliveries:  # afterwards, since a new copy may come before the message that was delivered before
            if each.isolation is None and isolation.knows(each.wire):
                isolation.begin(each)
        self.batcher.accept([each for each in deliveries if each.isolation is None])

    async def dead_letter(self, dead_letter: DeadLetter) -> None:
        """Keep a message that did not reach a step, and return once that is committed; retry until it is."""
        saga_type = self.decoder.saga_type_of(dead_letter.message)
        message = self.decoder.under_its_saga(dead_letter.message)
        dead_letter = replace(dead_letter, message=message, saga_type=saga_type)
        async for attempt in AsyncRetrying(wait=PATIENCE, before_sleep=_log_retry):
            with attempt:
                async with self.database.transaction() as session:
                    await dead_letters.add(await session.connection(), [dead_letter])
        self._meter.dead_letter(dead_letter)
        dead_letters.log_dead_letter(dead_letter)

    async def drain(self, *, within: float) -> None:
        """Finish the running work within so many seconds; the rest is delivered again."""
        with bound_contextvars(service=self.service.name):
            try:
                async with asyncio.timeout(within):
                    if self.loops.tasks:
                        if "batcher" not in self.loops.ended:  # else its deliveries come again
                            await self.batcher.drain()
                        await self.relay.drain()
            except TimeoutError:
                log.warning("stopped before all was done; the rest is delivered again")

    async def stop(self) -> None:
        """End the loops and close the resources; no message may arrive any more."""
        running.end(self)
        self.loops.let_end()
        await self._end_loops()
        if self.loops.tasks:
            await self.poison_isolation.stop()
        await asyncio.gather(self._close(), self._export_last_spans())

    async def _end_loops(self) -> None:
        """End the loops between two transactions; cancel them only where the database keeps one from ending."""
        if not self.loops.tasks:
            return
        for each in (self.pruner, self.watchdog, self.batcher, self.relay):
            each.stop()
        _, stuck = await asyncio.wait(self.loops.tasks, timeout=_LAST_TRANSACTION)
        for task in stuck:
            task.cancel()
        if stuck:
            await asyncio.wait(stuck, timeout=_FAREWELL)

    async def _close(self) -> None:
        with suppress(TimeoutError):  # a silent server does not keep the process from ending
            async with asyncio.timeout(_FAREWELL):
                await self._close_resources()
                await self.database.close()

    async def _close_resources(self) -> None:
        try:
            await contain("closing the resources of the steps", self._resources.aclose())
        except Exception as error:  # noqa: BLE001 -- a provider is the service's own code, and the process ends anyway
            log.error("the resources of the steps could not be closed", error=describe(error))

    async def _export_last_spans(self) -> None:
        if self.tracing:
            await asyncio.to_thread(self.tracing.shut_down, _FAREWELL)

    async def _open_resources(self) -> dict[type, Any]:
        opened = {}
        for kind, provider in self.service.provides.items():
            with contained(f"the provider of {kind.__name__}"):
                opened[kind] = await self._resources.enter_async_context(provider(self.settings))
        return opened


def _open_database(service: Service, settings: Settings, engine: AsyncEngine | None) -> Database:
    if engine is not None:
        return Database.on_engine(engine, schema=settings.database_schema)
    return Database(settings.database_for(service.name))


def _build_decoder(runtime: ServiceRuntime) -> Decoder:
    # Without a broker there are no logins: all services are one process.
    logins = {} if runtime.settings.broker_url == EMBEDDED else runtime.settings.logins
    return Decoder(
        runtime.service.consumed(),
        runtime.service.sagas,
        max_body=runtime.settings.max_message_bytes,
        saga_types=runtime.service.saga_types(),
        trace=runtime.tracing.root_of if runtime.tracing else None,
        senders=Senders(
            exchange=runtime.settings.exchange, queue=runtime.queue, logins=logins, coordinators=_askers(runtime)
        ),
    )


def _askers(runtime: ServiceRuntime) -> dict[str, str]:
    """Return the coordinator of each step that one asks."""
    coordinators = coordinators_of(runtime.service, runtime.settings.asked_by)
    return {step.name: coordinators[step.saga.name] for step in runtime.service.steps if step.saga.name in coordinators}


def _build_relay(runtime: ServiceRuntime) -> Relay:
    return Relay(
        runtime.database,
        runtime.publisher,
        service=runtime.service.name,
        clock=runtime.clock,
        window=runtime.settings.relay_window,
        lease=runtime.settings.relay_lease,
        poll=runtime.settings.relay_poll,
        tracing=runtime.tracing,
    )


def _build_batcher(runtime: ServiceRuntime, resources: dict[type, Any]) -> Batcher:
    settings = runtime.settings
    executor = Executor(
        runtime.service,
        settings,
        queue=runtime.queue,
        database=runtime.database,
        invocation=Invocation(resources, middleware=runtime.service.middleware),
        relay=runtime.relay,
        clock=runtime.clock,
        former_steps=runtime.former_steps,
        tracing=runtime.tracing,
    )
    calls = ExternalCalls(executor, concurrency=settings.external_concurrency, batch_size=settings.batch_size)
    return Batcher(executor, calls, runtime.decoder, clock=runtime.clock, batch_size=settings.batch_size)


def _log_retry(state: Any) -> None:
    if state.attempt_number % _SILENT_TRIES == 1:
        complain("dead letter could not be kept; it is tried again", state.outcome.exception())
