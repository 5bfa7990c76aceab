"""A service for as long as a Starlette or FastAPI application runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Service
from toolkit.embedding.embedded_service import PATIENCE, EmbeddedService


def saga_lifespan(
    service: Service,
    settings: Settings | None = None,
    *,
    engine: AsyncEngine | None = None,
    patience: timedelta = PATIENCE,
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return the lifespan of an application that runs the service in its event loop, on RabbitMQ.

        app = FastAPI(lifespan=saga_lifespan(shop, engine=engine))

    An application with a lifespan of its own, or with several services, enters it there:

        async with saga_lifespan(shop)(app), saga_lifespan(billing)(app):
            yield

    - `settings`: by default those of the environment.
    - `engine`: the application's own, for its database and its pool, in place of SAGA_DATABASE_URL.
    - `patience`: how long the application's start waits for the database and the broker; it starts without them after
      that, and the service follows as soon as both answer.

    Raises on entering:
        SagaError: the service can't start, for a reason that waiting does not change.
    """

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        running = EmbeddedService(service, settings, engine=engine, patience=patience)
        await running.start()
        try:
            yield
        finally:
            await running.stop()

    return lifespan
