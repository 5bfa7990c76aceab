"""The clients of the services that a command reads; declarations are found below the current directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from toolkit.cli.service_discovery import find_service

if TYPE_CHECKING:
    from toolkit.client.service_client import ServiceClient


@asynccontextmanager
async def opened(named: Sequence[str] | None) -> AsyncIterator[list[ServiceClient]]:
    """Locate the services, and close their clients at the end.

    Raises:
        NoServiceError: no service is named or found, or one is named wrongly.
    """
    clients = locate(named)
    try:
        yield clients
    finally:
        for client in clients:
            await client.close()


def locate(named: Sequence[str] | None) -> list[ServiceClient]:
    """Return the clients of the services that are named, or found."""
    from toolkit.client import service_locations
    from toolkit.configuration.settings import load_settings

    return service_locations.locate(named, load_settings(), find_service)
