"""Servers for a test to break: in containers that it restarts, and behind proxies that it cuts.

Without Docker the servers found on this machine are used; the proxy simulates their restart.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import docker.errors
from testcontainers.core.container import DockerContainer

from tests.end_to_end.proxy import Proxy
from tests.servers import Kind, container_for, docker_is_there, find, wait_for_answer

#: The length of a simulated restart, in seconds: about that of a real one.
_SIMULATED_RESTART = 3.0

#: Docker's errors when another process got the port meanwhile.
_PORT_IS_TAKEN = re.compile("port is already allocated|address already in use")


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A server for a test to break, and its container if it has one."""

    kind: Kind
    url: str
    container: DockerContainer | None

    @property
    def port(self) -> int:
        """The port of 127.0.0.1, the same after each restart."""
        return int(urlsplit(self.url).port or self.kind.port)


class Breakable:
    """A server behind a proxy."""

    def __init__(self, server: OwnServer, proxy: Proxy) -> None:
        self.server, self.proxy = server, proxy
        self.url = server.url

    async def restart(self, *, gently: bool = True) -> None:
        """Stop the server, gracefully or as a power cut does, start it again, and wait until it answers."""
        if self.server.container is None:
            await self._simulate_restart()
        else:
            await asyncio.to_thread(self._restart, self.server.container, gently)

    def _restart(self, container: DockerContainer, gently: bool) -> None:
        wrapped = container.get_wrapped_container()
        if gently:
            wrapped.stop(timeout=10)
        else:
            wrapped.kill()
        wrapped.start()
        wait_for_answer(self.server.kind, "127.0.0.1", self.server.port)

    async def _simulate_restart(self) -> None:
        self.proxy.refuse()
        await asyncio.sleep(_SIMULATED_RESTART)  # the outage's own length
        self.proxy.heal()


@contextmanager
def own_server(kind: Kind) -> Iterator[OwnServer]:
    """Yield a server of the test's own if Docker answers, else one that is found."""
    if not docker_is_there():
        with find(kind) as found:
            yield OwnServer(kind, found.url, None)
        return
    server = _started(kind)
    try:
        yield server
    finally:
        assert server.container is not None
        server.container.stop()


@asynccontextmanager
async def breakable(server: OwnServer) -> AsyncIterator[Breakable]:
    """Yield the server behind a proxy."""
    async with Proxy(server.url) as proxy:
        yield Breakable(server, proxy)


def _started(kind: Kind) -> OwnServer:
    """Start a container on a port that a restart does not change."""
    for tries_left in reversed(range(5)):
        port = free_port()
        container = container_for(kind)
        container.ports[kind.port] = ("127.0.0.1", port)
        try:
            container.start()
        except docker.errors.APIError as error:
            container.stop()
            if tries_left and _PORT_IS_TAKEN.search(str(error)):
                continue
            raise RuntimeError(f"Docker could not start {kind.image}: {error.explanation or error}") from error
        wait_for_answer(kind, "127.0.0.1", port, container)
        return OwnServer(kind, kind.url.format(host="127.0.0.1", port=port), container)
    raise AssertionError("the last try returns or raises")


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
