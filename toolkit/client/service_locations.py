"""Where services are reached: as named, by SAGA_SERVICES, or by their files in the data directory.

The first way that names any service counts, so that two ways never mix.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from toolkit.client.database_client import DatabaseClient
from toolkit.client.service_client import ServiceClient
from toolkit.clock import SystemClock
from toolkit.configuration.environment import secret_variable
from toolkit.configuration.server_urls import has_sound_address, is_database_url
from toolkit.configuration.settings import Settings, queue_name
from toolkit.declaration.contract import contract_of
from toolkit.declaration.service import Service
from toolkit.errors import NoServiceError, SagaError, UnreachableError
from toolkit.extras import require
from toolkit.urls import HIDDEN, shown_url

#: Returns the declarations of the service of this name; raises a SagaError where they are not to be found.
Find = Callable[[str], Service]


def locate(named: Sequence[str] | None, settings: Settings, find: Find) -> list[ServiceClient]:
    """Return the clients by the first way that names any; `named` has pairs NAME=URL.

    Raises:
        NoServiceError: no service is named or found, or one is named wrongly.
    """
    listed = [each.strip() for each in secret_variable("SAGA_SERVICES").split(",") if each.strip()]
    if named:
        return _by_name(named, settings, find, may_show=True)
    if listed:
        try:
            return _by_name(listed, settings, find, may_show=False)
        except NoServiceError as error:
            raise NoServiceError(f"SAGA_SERVICES is not allowed: {error}") from None
    directory = settings.data_dir
    files = _logs_in(directory) or _logs_in(directory / "demo")
    if not files:
        raise NoServiceError(
            f"no service to read: name them by --service NAME=URL or in SAGA_SERVICES, or go to where their files "
            f"lie ({directory}/*.db here, or SAGA_DATA_DIR), or make some with `saga demo`"
        )
    return [in_database(path.stem, f"sqlite:///{path}", settings, find) for path in files]


def in_database(name: str, url: str, settings: Settings, find: Find) -> DatabaseClient:
    """Return the client of a service's database; reading works without the declarations."""
    return DatabaseClient(
        name,
        url,
        queue=queue_name(settings, name),
        contract=lambda: contract_of(_declared(name, find), settings),
        declared=lambda: _declared(name, find),
        clock=SystemClock(),
    )


def _by_name(pairs: Iterable[str], settings: Settings, find: Find, *, may_show: bool) -> list[ServiceClient]:
    """Return the clients of `NAME=URL`; `may_show`: an option's text is no secret, the environment's may be one."""
    found: dict[str, ServiceClient] = {}
    for pair in pairs:
        name, _, url = pair.partition("=")
        if not name or not url or not (may_show or "://" in url):
            shown = name if may_show and name.replace("-", "_").isidentifier() else HIDDEN
            raise NoServiceError(
                f"{shown!r} names no service: write NAME=URL, for example payment=http://127.0.0.1:8000"
            )
        if name in found:
            raise NoServiceError(f"the service {name} is named twice: a service has one address")
        found[name] = _at(name, url, settings, find)
    return list(found.values())


def _at(name: str, url: str, settings: Settings, find: Find) -> ServiceClient:
    try:
        if url.startswith(("http://", "https://")):
            if not urlsplit(has_sound_address(url)).hostname:
                raise ValueError(f"{shown_url(url)} names no host: write for example http://127.0.0.1:8000")
            return _over_http(name, url, settings)
        if url.startswith(("sqlite:///", "postgresql://")):
            is_database_url(url)
            return in_database(name, url, settings, find)
    except ValueError as error:
        raise NoServiceError(f"the address of {name} is no URL: {error}") from None
    raise NoServiceError(f"the address of {name} is not allowed: it begins with http://, sqlite:/// or postgresql://")


def _over_http(name: str, url: str, settings: Settings) -> ServiceClient:
    require("client", f"the HTTP client of {name}")
    from toolkit.client.http_client import HttpClient

    return HttpClient(name, url, token=settings.api_token, read_token=settings.api_read_token)


def _declared(name: str, find: Find) -> Service:
    try:
        return find(name)
    except SagaError as error:
        raise UnreachableError(f"the declarations of {name} are not to be found: {error}") from error


def _logs_in(directory: Path) -> list[Path]:
    """Return the SQLite files that hold a saga log; other services' stores may lie beside them."""
    return [path for path in sorted(directory.glob("*.db")) if _has_log(path)]


def _has_log(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'saga_log'").fetchall())
    except sqlite3.Error:
        return False
