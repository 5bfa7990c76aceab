"""A service in the event loop of an application: its start, its stop, and how its API finds it.

It sets no tracer provider and no signal handler, and configures no logs: the process belongs to the application.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from toolkit.app import App
from toolkit.configuration.environment import guard_token
from toolkit.configuration.settings import EMBEDDED, Settings, load_settings
from toolkit.declaration.service import Service
from toolkit.errors import SagaError, SettingsError, describe
from toolkit.foreign_code.containment import contain
from toolkit.persistence.schema import schema_of

log = structlog.get_logger("toolkit")

#: How long an application's start waits for the database and the broker: longer than both take to answer, shorter than
#: the patience of what starts the application.
PATIENCE = timedelta(seconds=10)

_hosted: dict[EmbeddedService, asyncio.AbstractEventLoop] = {}


class EmbeddedService:
    """One service on RabbitMQ, in the application's event loop.

    - `engine`: the application's own, in place of SAGA_DATABASE_URL.
    - `patience`: how long `start` waits for its database and its broker; afterwards the service goes on waiting in the
      background, and starts as soon as both answer.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings | None = None,
        *,
        engine: AsyncEngine | None = None,
        patience: timedelta = PATIENCE,
    ) -> None:
        self.service = service
        self.app = App(service, _checked(settings or load_settings()), engine=engine)
        self._patience = patience
        self._starting: asyncio.Task[None] | None = None

    @property
    def place(self) -> tuple[str, str | None]:
        """Where the service's tables are: the database, and the schema in it."""
        database = self.app.runtime.database
        return database.url, schema_of(database.engine.dialect)

    async def start(self) -> None:
        """Start the service.

        Raises:
            SagaError: it can't start, for a reason that waiting does not change; nothing of it is left running.
        """
        self._refuse_a_shared_database()
        _hosted[self] = asyncio.get_running_loop()
        self._starting = asyncio.create_task(contain(f"the start of {self.service.name}", self.app.start()))
        try:
            await asyncio.wait({self._starting}, timeout=self._patience.total_seconds())
            if self._starting.done():
                self._starting.result()
        except BaseException:  # a cancellation, too
            await self.stop()
            raise
        if not self._starting.done():
            cure = "it starts as soon as its database and its broker answer; /readyz reports when"
            log.warning("the application starts before its service", service=self.service.name, cure=cure)
            self._starting.add_done_callback(self._report_failure)

    async def stop(self) -> None:
        """Take nothing new, finish the messages in progress, publish what they emitted, and disconnect."""
        _hosted.pop(self, None)
        if self._starting:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        await self.app.stop()

    def _refuse_a_shared_database(self) -> None:
        for other in _hosted:
            if other.place == self.place and other.service.name != self.service.name:
                raise SettingsError(
                    f"{self.service.name} and {other.service.name} have one database, and the relay of each would send "
                    "the events of both: give each a database or a schema of its own (SAGA_DATABASE_SCHEMA), or "
                    "declare one service with the participants of both"
                )

    def _report_failure(self, starting: asyncio.Task[None]) -> None:
        if not starting.cancelled() and (error := starting.exception()):
            fault = str(error) if isinstance(error, SagaError) else describe(error)
            log.error("service could not start", service=self.service.name, error=fault)


def embedded(service: Service) -> EmbeddedService | None:
    """Return the service as it runs in this event loop; None where it does not."""
    here = asyncio.get_running_loop()
    return next((each for each, loop in _hosted.items() if each.service is service and loop is here), None)


def _checked(settings: Settings) -> Settings:
    if settings.broker_url == EMBEDDED:
        raise SettingsError(
            "SAGA_BROKER_URL=embedded runs all services of a saga in one process, by `toolkit.transport.embedded`; "
            "a service in an application needs a broker: name one, such as amqp://guest:guest@127.0.0.1:5672/"
        )
    place = "the API of a service in an application is reached from other machines"
    guard_token("SAGA_API_TOKEN", settings.api_token or settings.api_token_digest, place)
    guard_token("SAGA_API_READ_TOKEN", settings.api_read_token or settings.api_read_token_digest, place)
    return settings
