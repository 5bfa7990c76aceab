"""Serving HTTP with bounds: how long a client may take, how many connections there are, and where they arrive.

uvicorn bounds a head's size (16 kB), an idle connection (5 s) and the requests under way. `BoundedProtocol` adds what
it has no option for: the time for a head and a body, for a client that does not read, and the number of connections.
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

#: Seconds for a request's head, then for its body, and for a client to read what it has asked for.
PATIENCE = 10
#: So many connections a listener holds; an operator, the console and a load balancer have a few dozen.
MOST_CONNECTIONS = 256
#: A listener takes at most this part of the files that the process may open; databases and the broker need the rest.
_SHARE_OF_FILES = 4
#: So many connections are accepted at once; asyncio would go on beyond the file limit before the first one is counted.
_BACKLOG = 64


class BoundedProtocol(H11Protocol):
    """One connection, closed when its client takes too long, or when a newer one needs its place.

    Where `limit_concurrency` connections are there, a new one takes the place of the one whose client has been waited
    for longest, so that half-sent requests keep no honest client out; where all are being answered, the new one is
    closed.
    """

    _clock: asyncio.TimerHandle | None = None
    _awaited: type[Any] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Take a connection if there is room for it."""
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
        """Take what the client sends."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request, and for what the client still sends of this one; it is thrown away."""
        super().on_response_complete()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._watch()

    def pause_writing(self) -> None:
        """Wait for a client that does not read as fast as it is answered."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self._watch()

    def _watch(self) -> None:
        """Start the clock where it becomes the client's turn, and stop it where the client has done its part."""
        awaited = self._turn()
        if awaited is self._awaited:
            return
        self._awaited = awaited
        if self._clock:
            self._clock.cancel()
        self._clock = self.loop.call_later(PATIENCE, self.transport.abort) if awaited else None

    def _turn(self) -> type[Any] | None:
        """Return what the client is to do: read, send a head (IDLE) or a body; None where it is our turn."""
        if self.flow.write_paused or self.transport.is_closing():
            return h11.CLOSED
        return self.conn.their_state if self.conn.their_state in (h11.IDLE, h11.SEND_BODY) else None

    def _is_room(self) -> bool:
        limit = self.limit_concurrency
        return limit is None or len(self.connections) < limit - 1  # uvicorn itself refuses requests from the limit on

    def _make_room(self) -> bool:
        """Close the connection whose client has been waited for longest, if there is one."""
        waiting = {each: each._clock.when() for each in cast("set[BoundedProtocol]", self.connections) if each._clock}
        if not waiting:
            return False
        longest = min(waiting, key=waiting.__getitem__)
        self.connections.discard(longest)
        longest.transport.abort()
        return True


class SideServer(uvicorn.Server):
    """A server beside another one in the same process, to which the signals go."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def server_config(app: ASGIApp, *, most_connections: int = MOST_CONNECTIONS, **options: Any) -> uvicorn.Config:
    """Return how uvicorn serves this application: bounded, and trusting no header of a proxy."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = most_connections if soft == resource.RLIM_INFINITY else min(most_connections, soft // _SHARE_OF_FILES)
    bounds: dict[str, Any] = {"limit_concurrency": most + 1, "backlog": _BACKLOG, "timeout_graceful_shutdown": 1}
    own: dict[str, Any] = {"http": BoundedProtocol, "ws": "none", "proxy_headers": False, "log_config": None}
    return uvicorn.Config(app, access_log=False, **own, **bounds, **options)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens there: until one does, others may bind the same port, and find out too late.

    Raises:
        OSError: nothing can listen there.
        UnicodeError: the host is no name.
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
