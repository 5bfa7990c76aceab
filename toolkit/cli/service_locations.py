"""Where the services can be read: by option, by SAGA_SERVICES, or their files in the data directory.

The first way that names any service counts, so that two ways never mix.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from toolkit.cli.exit_codes import UsageError
from toolkit.cli.service_discovery import find_service
from toolkit.clock import SystemClock
from toolkit.errors import UnreachableError

if TYPE_CHECKING:
    from toolkit.client.service_client import ServiceClient
    from toolkit.configuration.settings import Settings
    from toolkit.declaration.contract import Contract


@asynccontextmanager
async def opened(named: Sequence[str] | None) -> AsyncIterator[list[ServiceClient]]:
    """Find the services' clients, and close them at the end.

    Raises:
        UsageError: no service is named or found, or one is named wrongly.
    """
    clients = locate(named)
    try:
        yield clients
    finally:
        for client in clients:
            await client.close()


def locate(named: Sequence[str] | None) -> list[ServiceClient]:
    """Return the clients by the first way that names any."""
    from toolkit.configuration.environment import secret_variable
    from toolkit.configuration.settings import load_settings

    listed = [each.strip() for each in secret_variable("SAGA_SERVICES").split(",") if each.strip()]
    if named or listed:
        return _by_name(named or listed, load_settings())
    settings = load_settings()
    directory = settings.data_dir
    files = _logs_in(directory) or _logs_in(directory / "demo")
    if not files:
        raise UsageError(
            f"no service to read: name them by --service NAME=URL or in SAGA_SERVICES, or go to where their files "
            f"lie ({directory}/*.db here, or SAGA_DATA_DIR), or make some with `saga demo`"
        )
    return [_in_database(path.stem, f"sqlite:///{path}", settings) for path in files]


def _by_name(pairs: Iterable[str], settings: Settings) -> list[ServiceClient]:
    from toolkit.urls import shown_url

    found: dict[str, ServiceClient] = {}
    for pair in pairs:
        name, _, url = pair.partition("=")
        if not name or not url:
            raise UsageError(f"{shown_url(pair)!r} names no service: write NAME=URL, payment=http://127.0.0.1:8000 say")
        if name in found:
            raise UsageError(f"the service {name} is named twice: a service has one address")
        found[name] = _at(name, url, settings)
    return list(found.values())


def _at(name: str, url: str, settings: Settings) -> ServiceClient:
    import httpx

    from toolkit.client.http_client import HttpClient
    from toolkit.configuration.server_urls import has_sound_address, is_database_url
    from toolkit.urls import shown_url

    try:
        if url.startswith(("http://", "https://")):
            if not urlsplit(has_sound_address(url)).hostname:
                raise ValueError(f"{shown_url(url)} names no host, write http://127.0.0.1:8000 say")
            return HttpClient(name, url, token=settings.api_token, read_token=settings.api_read_token)
        if url.startswith(("sqlite:///", "postgresql://")):
            is_database_url(url)
            return _in_database(name, url, settings)
    except (httpx.InvalidURL, ValueError) as error:
        raise UsageError(f"the address of {name} is no URL: {error}") from None
    raise UsageError(f"the address of {name} is not allowed: it begins with http://, sqlite:/// or postgresql://")


def _in_database(name: str, url: str, settings: Settings) -> ServiceClient:
    # The declarations are looked for only if they are needed: reading works from any directory.
    from toolkit.client.database_client import DatabaseClient
    from toolkit.configuration.settings import queue_name

    return DatabaseClient(
        name,
        url,
        queue=queue_name(settings, name),
        emitted=lambda: find_service(name).emitted(),
        contract=lambda: _declared(name),
        clock=SystemClock(),
    )


def _declared(name: str) -> Contract:
    from toolkit.declaration.contract import Contract

    try:
        return Contract.of(find_service(name))
    except UsageError as error:
        raise UnreachableError(f"the declarations of {name} are not to be found: {error}") from error


def _logs_in(directory: Path) -> list[Path]:
    """Return the SQLite files that hold a saga log; other services' stores may lie beside them."""
    return [path for path in sorted(directory.glob("*.db")) if _has_log(path)]


def _has_log(path: Path) -> bool:
    import sqlite3

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'saga_log'").fetchall())
    except sqlite3.Error:
        return False
