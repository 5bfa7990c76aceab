"""A service in a FastStream application, beside the application's own subscribers.

It uses the broker of the application, and connections of its own, for reading and for publishing. On a shared
connection one message with properties that can't be decoded would close the connection under the application's
subscribers, again with each redelivery; and a memory alarm, which blocks a connection that publishes, would hold back
the acknowledgements of both.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from toolkit.configuration.settings import Settings, load_settings
from toolkit.declaration.service import Service
from toolkit.embedding.embedded_service import PATIENCE, EmbeddedService
from toolkit.transport.rabbitmq.team_broker import address_of


class FastStreamApp(Protocol):
    """What `participate` needs of a `FastStream` or an `AsgiFastStream`."""

    @property
    def broker(self) -> Any:
        """The application's broker."""
        ...

    def after_startup(self, func: Any) -> Any:
        """Register a function that is called once the application's broker has started."""
        ...

    def on_shutdown(self, func: Any) -> Any:
        """Register a function that is called before the application's broker stops."""
        ...


def participate(
    app: FastStreamApp,
    service: Service,
    settings: Settings | None = None,
    *,
    engine: AsyncEngine | None = None,
    patience: timedelta = PATIENCE,
) -> None:
    """Run a service for as long as the FastStream application runs.

        app = FastStream(RabbitBroker("amqp://shop:secret@rabbitmq/"))
        participate(app, payment)

    It starts after the application's broker, and stops before it.

    - `settings`: by default those of the environment. The broker is the application's, with its login, unless they name
      SAGA_BROKER_URL.
    - `engine`, `patience`: as of `saga_lifespan`.

    Raises:
        SettingsError: the settings name no broker, and the application's has no URL for a second connection.
    """
    settings = settings or load_settings()
    if "broker_url" not in settings.model_fields_set:
        settings = settings.model_copy(update={"broker_url": address_of(app.broker)})
    running: list[EmbeddedService] = []

    async def begin() -> None:
        running.append(EmbeddedService(service, settings, engine=engine, patience=patience))
        await running[-1].start()

    async def end() -> None:
        if running:
            await running.pop().stop()

    app.after_startup(begin)
    app.on_shutdown(end)
