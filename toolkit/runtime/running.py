"""The services that run in this process: transactions of the application around them wake their relays.

A row that no relay of this process sends goes out by a poll of any running replica, `SAGA_RELAY_POLL` after its commit.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Service
from toolkit.persistence.schema import schema_of

if TYPE_CHECKING:
    from toolkit.runtime.service_runtime import ServiceRuntime

_running: dict[ServiceRuntime, asyncio.AbstractEventLoop] = {}


def begin(runtime: ServiceRuntime) -> None:
    """Add a service that runs on this thread's event loop."""
    _running[runtime] = asyncio.get_running_loop()


def end(runtime: ServiceRuntime) -> None:
    """Remove a service that stops."""
    _running.pop(runtime, None)


def settings_of(service: Service) -> Settings | None:
    """Return the settings with which a service runs in this process; None where it does not."""
    return next((each.settings for each in tuple(_running) if each.service is service), None)


def schemas() -> set[str | None]:
    """Return the schemas in which the services of this process have their tables on PostgreSQL."""
    dialects = (each.database.engine.dialect for each in tuple(_running))
    return {schema_of(dialect) for dialect in dialects if dialect.name == "postgresql"}


def largest_message() -> int | None:
    """Return the most bytes of an event for the services that run in this process; None where none runs."""
    return max((each.settings.max_message_bytes for each in tuple(_running)), default=None)


def wake_relays() -> None:
    """Let the relays of this process look for due rows now; from any thread."""
    for runtime, loop in tuple(_running.items()):
        with suppress(RuntimeError):  # its event loop has closed meanwhile
            loop.call_soon_threadsafe(runtime.relay.wake)
