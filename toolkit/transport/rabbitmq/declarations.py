"""Declares what one service needs on the broker, and repeats it, so that a deleted queue or binding is restored."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from aio_pika.abc import AbstractRobustChannel, AbstractRobustConnection

from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Service
from toolkit.errors import describe
from toolkit.persistence.known_bindings import Bindings
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.transport.rabbitmq.connection import CONNECT_TIMEOUT
from toolkit.transport.rabbitmq.queue_consumer import QueueConsumer
from toolkit.transport.rabbitmq.refusals import refusal_of
from toolkit.transport.rabbitmq.topology import (
    bound_keys,
    declare,
    declared_queues,
    given_exchanges,
    shared_exchanges,
    unbind,
)

log = structlog.get_logger("toolkit")


class Declarations:
    """The exchanges, queues and bindings of one service.

    - `is_refused`: whether the broker refused the last declaration for good.
    """

    def __init__(self, service: Service, settings: Settings, runtime: ServiceRuntime) -> None:
        self.is_refused = False
        self._service = service
        self._settings = settings
        self._runtime = runtime
        self._bindings = Bindings(runtime.database, renewed_every=settings.redeclare_every)
        self._connection: AbstractRobustConnection | None = None
        self._channel: AbstractRobustChannel | None = None
        self._given: frozenset[str] = frozenset()
        self._bound_for_good: set[str] = set()

    async def begin(self, connection: AbstractRobustConnection) -> None:
        """Declare all of it, on a channel of its own."""
        self._connection = connection
        if self._channel is None:
            self._given = await given_exchanges(connection, shared_exchanges(self._settings))
            self._channel = await connection.channel()
        await self._declare()

    async def keep(self, consumer: QueueConsumer) -> None:
        """Declare all of it periodically, and at once when the broker ends the consumer."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.redeclare_every.total_seconds()):
                    await consumer.ended.wait()
            consumer.ended.clear()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self._declare()
                    await consumer.consume()
                self.is_refused = False
            except asyncio.CancelledError:
                # aio-pika ends a call on a dying connection this way though the task was not cancelled.
                if (task := asyncio.current_task()) and task.cancelling():
                    raise
            except Exception as error:  # noqa: BLE001 -- whatever the broker's client raises, the next time may be well
                self._log_failure(error)

    async def leave(self) -> None:
        """End the lease on this process's routing keys."""
        await self._bindings.leave()

    async def _declare(self) -> None:
        """Declare all of it, and unbind the keys that only a former release consumed."""
        if self._channel is None or self._connection is None:
            return
        left = await self._bindings.renew(bound_keys(self._service, self._settings))
        self._runtime.decoder.former = frozenset(key.rpartition(".")[2] for key in self._bindings.former)
        await declare(self._channel, self._settings, self._service, given=self._given)
        if new := set(left) - self._bound_for_good:
            await self._unbind(self._connection, new)

    async def _unbind(self, connection: AbstractRobustConnection, keys: set[str]) -> None:
        if await unbind(connection, self._settings, self._service.name, keys):
            await self._bindings.unbound(keys)
            return
        self._bound_for_good |= keys  # the broker would refuse each further try
        cure = "unbind them by a login that may read these keys; until then their events become dead letters"
        log.error("the broker refuses to unbind a former release's routing keys", keys=sorted(keys), cure=cure)

    def _log_failure(self, error: Exception) -> None:
        refusal = refusal_of(error, self._settings)
        self.is_refused = refusal is not None
        write = log.error if refusal else log.warning
        queue, _ = declared_queues(self._settings, self._service.name)
        write("queue and bindings could not be declared again", queue=queue.name, error=describe(refusal or error))
