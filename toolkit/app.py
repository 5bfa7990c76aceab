"""The composition root of one service: RabbitMQ and its database.

It changes nothing of the process around it: `toolkit.service_process` adds what `saga run` needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from toolkit.clock import SystemClock
from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Service
from toolkit.errors import DatabaseUnavailableError, describe
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.transport.rabbitmq.connection import connect_patiently
from toolkit.transport.rabbitmq.consumer import RabbitConsumer
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

log = structlog.get_logger("toolkit")

#: Seconds, when the service stops, for the deliveries in hand, for the messages that they emitted, for the last
#: transactions, and for an orderly disconnect from a broker that may be silent.
_FINISH, _DRAIN, _END, _FAREWELL = 2.5, 1.5, 2.0, 0.5
#: Seconds for a cancelled disconnect to end.
_MOMENT = 0.1


class App:
    """One service on RabbitMQ; `engine` is a team's own, in place of SAGA_DATABASE_URL."""

    def __init__(self, service: Service, settings: Settings, *, engine: AsyncEngine | None = None) -> None:
        self.service = service
        self.publisher = RabbitPublisher(settings)
        self.runtime = ServiceRuntime(service, settings, self.publisher, clock=SystemClock(), engine=engine)
        self._settings = settings
        self._consumer: RabbitConsumer | None = None

    async def start(self) -> None:
        """Wait for database and broker, then begin to work."""
        await self.runtime.prepare()
        await connect_patiently(self.publisher.connect, self.service.name, self._settings)
        self.runtime.begin()
        self._consumer = RabbitConsumer(self.service, self._settings, self.runtime)
        await connect_patiently(self._consumer.start, self.service.name, self._settings)
        for name, task in self._consumer.loops.items():
            self.runtime.loops.supervise(name, task)
        log.info("service started", service=self.service.name)

    async def stop(self) -> None:
        """Take nothing new, finish the messages in progress, publish what they emitted, and disconnect."""
        self.runtime.loops.let_end()
        if self._consumer:
            await _at_most(_FINISH, self._consumer.stop_taking())
        await _at_most(_DRAIN + _MOMENT, self.runtime.drain(within=_DRAIN))
        await _at_most(_END, self.runtime.stop())
        if self._consumer:
            await _at_most(_FAREWELL, self._consumer.close())
        await _at_most(_FAREWELL, self.publisher.close())
        log.info("service stopped", service=self.service.name)

    async def readiness(self) -> Mapping[str, bool]:
        """Return whether broker, database and relay work now, by probing each, and which loops have ended."""
        parts = {
            "broker": self.publisher.is_connected and self._consumer is not None and self._consumer.is_connected,
            "database": await self._database_answers() and self.runtime.is_recording,
            "relay": self._consumer is not None and self.runtime.relay.is_healthy,
        }
        return parts | dict.fromkeys(self.runtime.loops.ended, False)

    async def _database_answers(self) -> bool:
        try:
            await self.runtime.database.ping()
        except DatabaseUnavailableError:
            return False
        return True


async def _at_most(seconds: float, ending: Coroutine[Any, Any, None]) -> None:
    """Await `ending` for so many seconds at most; a failure is logged.

    In a task of its own: on a dying connection the broker's client raises CancelledError, or ignores one.
    """
    task = asyncio.create_task(ending)
    await asyncio.wait({task}, timeout=seconds)
    task.cancel()
    await asyncio.wait({task}, timeout=_MOMENT)
    if task.done() and not task.cancelled() and (error := task.exception()):
        log.info("connection closed uncleanly; unacknowledged messages will be redelivered", error=describe(error))
