"""Which database a service has: the one that is named for it, else the one of its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.exit_codes import UsageError
from toolkit.cli.service_discovery import find_service
from toolkit.cli.service_locations import locate

if TYPE_CHECKING:
    from toolkit.configuration.settings import Settings


def databases_of(services: Sequence[str], located: Sequence[str] | None) -> dict[str, str]:
    """Return the URL of each service's database, by the service's name.

    Raises:
        UsageError: a service is not known, or only its API is.
    """
    from toolkit.configuration.environment import secret_variable
    from toolkit.configuration.settings import load_settings

    settings = load_settings()
    names = [find_service(each).name if ":" in each else each for each in services]
    if located or secret_variable("SAGA_SERVICES").strip():
        return _named(names, located)
    return {name: _own(name, settings) for name in names}


def _named(names: Sequence[str], located: Sequence[str] | None) -> dict[str, str]:
    from toolkit.client.database_client import DatabaseClient

    clients = {client.service: client for client in locate(located)}
    if unknown := [name for name in names if name not in clients]:
        raise UsageError(f"there is no service {', '.join(unknown)}; there are: {', '.join(clients)}")
    urls = {name: each.url for name in names if isinstance(each := clients[name], DatabaseClient)}
    if of_apis := [name for name in names if name not in urls]:
        raise UsageError(
            f"only the API of {', '.join(of_apis)} is named: name the database, for example "
            f"--service {of_apis[0]}=postgresql://user@host/database"
        )
    return urls


def _own(name: str, settings: Settings) -> str:
    """Return the database of the settings; a file that is not there must be a declared service's."""
    url = settings.database_for(name)
    if settings.database_url is None and not Path(url.removeprefix("sqlite:///")).exists():
        find_service(name)
    return url
