"""Whom the doctor examines: the services that are named or found here, each with all ways to ask it."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.cli.exit_codes import UsageError
from toolkit.cli.service_discovery import discover, package_name
from toolkit.cli.service_locations import locate
from toolkit.client.database_client import DatabaseClient
from toolkit.client.http_client import HttpClient
from toolkit.client.service_client import ServiceClient
from toolkit.configuration.environment import secret_variable
from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Service
from toolkit.doctor import Target
from toolkit.errors import NoServiceError


def targets_of(names: Sequence[str], located: list[str] | None, settings: Settings) -> list[Target]:
    """Return these services, or all that are known here.

    Raises:
        UsageError: one of them is not known, or none is.
    """
    is_named = bool(located or secret_variable("SAGA_SERVICES").strip())
    clients, declared = _clients(located, is_named=is_named), _declared()
    known = list(dict.fromkeys([*clients, *declared]))
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"there is no service {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    if not known:
        raise UsageError("no service is known here: name some by --service NAME=URL, or go to where they are declared")
    chosen = list(dict.fromkeys(names)) or known
    # SAGA_DATABASE_URL is one service's; which one is clear only where a single service is examined.
    own = settings.database_url if len(chosen) == 1 else None
    return [
        Target(
            name=name,
            url=client.url if isinstance(client, HttpClient) else None,
            database_url=_database_of(client, own, is_named=is_named),
            client=client,
            declared=declared.get(name),
        )
        for name in chosen
        for client in [clients.get(name)]
    ]


def _database_of(client: ServiceClient | None, own: str | None, *, is_named: bool) -> str | None:
    """Return the database that is named for the service, else SAGA_DATABASE_URL, else the file that lies here."""
    found = client.url if isinstance(client, DatabaseClient) else None
    return found if found and is_named else own or found


def _clients(located: list[str] | None, *, is_named: bool) -> dict[str, ServiceClient]:
    """Return the services' clients, by name; none where none is named and there is no file."""
    try:
        return {client.service: client for client in locate(located)}
    except NoServiceError:
        if is_named:
            raise
        return {}


def _declared() -> dict[str, Service]:
    try:
        return discover(package_name())
    except UsageError:
        return {}
