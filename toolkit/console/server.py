"""The console's server: the address that it listens on, and the clients that it accepts."""

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
from toolkit.web.host_names import names_in
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
    names: str = "",
) -> None:
    """Serve the pages until a signal stops the process; `behind_https`: an HTTPS proxy is in front of the console;
    `names`: the further host names of `SAGA_HTTP_NAMES`.

    Raises:
        SettingsError: the address can't be listened on, or other machines reach it and no token is set.
    """
    must_sign_in = behind_https or not is_loopback(host)
    reached = "--behind-https" if behind_https else f"--host {host}"
    if must_sign_in and token is None:
        raise SettingsError(
            f"{reached} is reached from other machines, and signing in needs SAGA_API_TOKEN: "
            f"set it to the services' token, or leave {reached.split()[0]} out to serve this machine only"
        )
    if must_sign_in:
        guard_token("SAGA_API_TOKEN", token, f"{reached} is reached from other machines")
    listener = _listen(host, port)
    own = frozenset(each.lower() for each in (socket.gethostname(), *names_in(names)))
    app = application(
        clients, token=token, must_sign_in=must_sign_in, actor=actor, behind_https=behind_https, names=own
    )
    config = server_config(app, server_header=False)
    name = f"[{host}]" if ":" in host else host
    server = _Server(config, lambda: announce(f"the console is at http://{name}:{listener.getsockname()[1]}/"))
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, server.stop_early)
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that announces its address once it accepts connections."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, and announce it."""
        await super().startup(sockets)
        if self.started:
            self._announce()

    def stop_early(self, number: int, _: object) -> None:
        """Exit at once, unless the server has started: then uvicorn shuts down, and raises the signal again."""
        if not self.started:
            sys.exit(128 + number)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return bind(host, port)
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"--host {host} --port {port} can't be listened on: {cause}; name another") from error
