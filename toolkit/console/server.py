"""The console's server: where it listens, and to whom."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Sequence

import uvicorn
from pydantic import SecretStr

from toolkit.client.service_client import ServiceClient
from toolkit.configuration.environment import guard_token
from toolkit.console.app import application
from toolkit.errors import SettingsError
from toolkit.urls import is_loopback
from toolkit.web.server import bind, server_config


def serve(
    clients: Sequence[ServiceClient],
    *,
    token: SecretStr | None,
    host: str,
    port: int,
    actor: str,
    announce: Callable[[str], None],
    behind_https: bool = False,
) -> None:
    """Serve the pages until told to stop; `behind_https`: to a proxy that browsers ask by HTTPS, wherever it is.

    Raises:
        SettingsError: nothing can listen there, or whoever reaches it could not be asked to sign in.
    """
    must_sign_in = behind_https or not is_loopback(host)
    reached = "--behind-https" if behind_https else f"--host {host}"
    if must_sign_in and token is None:
        raise SettingsError(
            f"{reached} is reached from other machines, and without SAGA_API_TOKEN nobody could sign in: "
            f"set it to the services' token, or leave {reached.split()[0]} out to serve this machine alone"
        )
    if must_sign_in:
        guard_token("SAGA_API_TOKEN", token, f"{reached} is reached from other machines")
    listener = _listen(host, port)
    app = application(clients, token=token, must_sign_in=must_sign_in, actor=actor, behind_https=behind_https)
    config = server_config(app, server_header=False)
    shown = f"[{host}]" if ":" in host else host
    server = _Server(config, lambda: announce(f"the console is at http://{shown}:{listener.getsockname()[1]}/"))
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, server.told_to_stop)
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that says where it is once it hears what it is told, and not before."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, and say so."""
        await super().startup(sockets)
        if self.started:
            self._announce()

    def told_to_stop(self, number: int, _: object) -> None:
        """Leave at once, unless it has served: after its shutdown uvicorn raises the signal again, and all is done."""
        if not self.started:
            sys.exit(128 + number)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return bind(host, port)
    except (OSError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"--host {host} --port {port} can't be listened on: {told}; name another") from error
