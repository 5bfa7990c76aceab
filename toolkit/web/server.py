"""An HTTP server that limits clients' time and the number of connections.

uvicorn limits a head's size (16 kB), an idle connection (5 s) and the concurrent requests. `BoundedProtocol` adds the
limits that uvicorn lacks: the time for a head and a body, the time for reading an answer, and the connections.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from toolkit.web.head_limit import HeadLimit

#: Seconds for a request's head, then for its body, and for a client to read the answer.
PATIENCE = 10
#: The most connections of a listener; an operator, the console and a load balancer use a few dozen.
MOST_CONNECTIONS = 256
#: A listener uses at most one in so many of the process's file descriptors; databases and the broker need the rest.
_SHARE_OF_FILES = 4
#: The most connections accepted at once; asyncio would exceed the file limit before the first one is counted.
_BACKLOG = 64


class BoundedProtocol(H11Protocol):
    """One connection, closed when its client takes too long, or when a newer one needs its place.

    At `limit_concurrency` connections, a new one replaces the one that has waited longest for its client, so that
    half-sent requests keep no honest client out. If all of them are being answered, the new one is closed.
    """

    _clock: asyncio.TimerHandle | None = None
    _awaited: type[Any] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Accept a connection if there is room for it."""
        if self._is_room() or self._make_room():
            super().connection_made(transport)
            self._watch()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._clock:
            self._clock.cancel()
        if self.transport:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process bytes from the client."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request, and for the rest of this one's body, which is discarded."""
        super().on_response_complete()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._watch()

    def pause_writing(self) -> None:
        """Wait for a client that reads more slowly than it is answered."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Continue after the client has read."""
        super().resume_writing()
        self._watch()

    def _watch(self) -> None:
        """Start the timer when the client has to act, and stop it when the client has acted."""
        awaited = self._turn()
        if awaited is self._awaited:
            return
        self._awaited = awaited
        if self._clock:
            self._clock.cancel()
        self._clock = self.loop.call_later(PATIENCE, self.transport.abort) if awaited else None

    def _turn(self) -> type[Any] | None:
        """Return what the client has to do: read (CLOSED), send a head (IDLE) or a body; None on the server's turn."""
        if self.flow.write_paused or self.transport.is_closing():
            return h11.CLOSED
        return self.conn.their_state if self.conn.their_state in (h11.IDLE, h11.SEND_BODY) else None

    def _is_room(self) -> bool:
        limit = self.limit_concurrency
        return limit is None or len(self.connections) < limit - 1  # uvicorn itself rejects requests at the limit

    def _make_room(self) -> bool:
        """Close the connection that has waited longest for its client, if one waits."""
        waiting = {each: each._clock.when() for each in cast("set[BoundedProtocol]", self.connections) if each._clock}
        if not waiting:
            return False
        longest = min(waiting, key=waiting.__getitem__)
        self.connections.discard(longest)
        longest.transport.abort()
        return True


class SideServer(uvicorn.Server):
    """A second server in a process; the first one handles the signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle no signals."""
        yield


def server_config(app: ASGIApp, *, most_connections: int = MOST_CONNECTIONS, **options: Any) -> uvicorn.Config:
    """Return uvicorn's configuration for this application: bounded, and trusting no proxy's headers."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = most_connections if soft == resource.RLIM_INFINITY else min(most_connections, soft // _SHARE_OF_FILES)
    bounds: dict[str, Any] = {"limit_concurrency": most + 1, "backlog": _BACKLOG, "timeout_graceful_shutdown": 1}
    own: dict[str, Any] = {"http": BoundedProtocol, "ws": "none", "proxy_headers": False, "log_config": None}
    return uvicorn.Config(HeadLimit(app), access_log=False, **own, **bounds, **options)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket: before it listens, another process could bind the same port, and fail later.

    Raises:
        OSError: the address can't be listened on.
        UnicodeError: the host is not a name.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, UnicodeError):
        listener.close()
        raise
    return listener
