"""Who is examined, and how each can be asked."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.client.service_client import ServiceClient
from toolkit.declaration.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service: what it tells by HTTP, its database, and its declarations; None is what is not at hand."""

    name: str
    url: str | None = None
    database_url: str | None = None
    client: ServiceClient | None = None
    declared: Service | None = None
