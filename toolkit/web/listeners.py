"""The sockets of a service's API and of its health checks, by its settings."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

import structlog

from toolkit.configuration.environment import guard_token
from toolkit.configuration.settings import Settings
from toolkit.errors import SettingsError
from toolkit.web.server import bind

log = structlog.get_logger("toolkit")

#: The API's port when the settings name none and this one is free.
_USUAL_PORT = 8000
#: The system's errors about the port, as opposed to the address.
_PORT_FAULTS = (errno.EADDRINUSE, errno.EACCES, errno.EPERM)


def listen(settings: Settings) -> list[socket.socket]:
    """Listen for the API, and for health checks on a second port, unless the settings name one port for both.

    Raises:
        SettingsError: an address or a port is not available, or the API is not guarded as its address requires.
    """
    api = _listen_for_api(settings)
    try:
        _require_guard(settings, api)
    except SettingsError:
        api.close()
        raise
    port = api.getsockname()[1]
    log.info("api listens", host=settings.http_host, port=port)
    if settings.health_port == port:
        return [api]
    try:
        health = bind(settings.http_host, settings.health_port)
    except OSError as error:
        api.close()
        raise SettingsError(
            f"SAGA_HEALTH_PORT={settings.health_port} can't be listened on at {settings.http_host}: {error.strerror}; "
            "name a free one, or none to have one chosen"
        ) from error
    log.info("health listens", host=settings.http_host, port=health.getsockname()[1])
    return [api, health]


def _listen_for_api(settings: Settings) -> socket.socket:
    """Listen on the settings' port; without one on the usual port, or on any free one when that is taken."""
    wanted = settings.http_port
    try:
        return bind(settings.http_host, _USUAL_PORT if wanted is None else wanted)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", None) not in _PORT_FAULTS:
            raise SettingsError(
                f"SAGA_HTTP_HOST={settings.http_host!r} can't be listened on: {reason}; name an address of this machine"
            ) from error
        if wanted is not None:
            raise SettingsError(
                f"SAGA_HTTP_PORT={wanted} can't be listened on at {settings.http_host}: {reason}; "
                "name a free one, or none to have one chosen"
            ) from error
        return bind(settings.http_host, 0)


def _require_guard(settings: Settings, listener: socket.socket) -> None:
    """Require a token that can't be guessed for an API that other machines reach.

    Raises:
        SettingsError: it has no token, a short one, or the demonstration's.
    """
    if is_local(listener):
        return
    place = f"SAGA_HTTP_HOST={settings.http_host!r} is reached from other machines"
    try:
        if not (settings.write_digest or settings.read_digest):
            raise SettingsError(
                f"{place}, and SAGA_API_TOKEN is not set: set it to a text that can't be guessed, "
                "by `openssl rand -hex 32` for example; or SAGA_API_READ_TOKEN for clients that only read; "
                "or SAGA_HTTP_HOST to 127.0.0.1"
            )
        guard_token("SAGA_API_TOKEN", settings.api_token or settings.api_token_digest, place)
        guard_token("SAGA_API_READ_TOKEN", settings.api_read_token or settings.api_read_token_digest, place)
    except SettingsError:
        listener.close()
        raise


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine reaches the listener."""
    return ip_address(listener.getsockname()[0]).is_loopback
