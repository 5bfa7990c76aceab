"""A service to examine, and the ways to ask it."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.client.service_client import ServiceClient
from toolkit.declaration.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service: its HTTP address, its database and its declarations, as far as they are known here."""

    name: str
    url: str | None = None
    database_url: str | None = None
    client: ServiceClient | None = None
    declared: Service | None = None
