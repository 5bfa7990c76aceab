"""A TCP proxy on 127.0.0.1 between the services and one server, which simulates faults of the network.

A cut holds bytes back, as a network that drops packets: they arrive when it heals, if both ends are still connected.
A frozen connection transmits nothing and never ends, as one whose other end lost power.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from enum import Enum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

#: Bytes read at once; small enough that a cut interrupts a burst.
_CHUNK = 16 * 1024


class Way(Enum):
    """The direction of bytes, from the services' side."""

    OUT = "to the server"
    BACK = "from the server"


class Proxy:
    """Forwards all connections to the server of a URL, until a fault is set."""

    def __init__(self, server_url: str) -> None:
        self._server = urlsplit(server_url)
        self._is_refusing = False
        self._open = {way: asyncio.Event() for way in Way}
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.heal()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def through(self, url: str) -> str:
        """Return a URL of the server with the proxy's address; other URLs unchanged."""
        parts = urlsplit(url)
        if (parts.hostname, parts.port) != (self._server.hostname, self._server.port):
            return url
        login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return urlunsplit(parts._replace(netloc=f"{login}127.0.0.1:{self.port}"))

    def cut(self, *ways: Way) -> None:
        """Hold back the bytes of these directions, also on new connections."""
        for way in ways:
            self._open[way].clear()

    def freeze(self) -> set[Link]:
        """Silence all present connections for good, and return them; new ones work."""
        for link in self._links:
            link.is_frozen = True
        return set(self._links)

    def refuse(self) -> None:
        """Close all connections, and accept no new ones."""
        self._is_refusing = True
        self.reset()

    def reset(self, links: Collection[Link] | None = None) -> None:
        """Abort these connections, or all."""
        for link in self._links if links is None else links:
            link.abort()

    def heal(self) -> None:
        """End all faults."""
        self._is_refusing = False
        for gate in self._open.values():
            gate.set()

    async def passes(self, way: Way) -> None:
        """Wait until this direction is open."""
        await self._open[way].wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._is_refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(self._server.hostname, self._server.port)
        except OSError:
            writer.transport.abort()
            return
        link = Link(self, (reader, writer), (far_reader, far_writer))
        self._links.add(link)
        try:
            await link.carry()
        finally:
            self._links.discard(link)


class Link:
    """One connection."""

    def __init__(
        self,
        proxy: Proxy,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy, self._near, self._far = proxy, near, far
        self.is_frozen = False

    async def carry(self) -> None:
        """Forward bytes both ways until one end closes."""
        ways = [
            asyncio.create_task(self._pump(self._near[0], self._far[1], Way.OUT)),
            asyncio.create_task(self._pump(self._far[0], self._near[1], Way.BACK)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if self.is_frozen:
                await asyncio.wait(ways)
        finally:
            self.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def abort(self) -> None:
        """Abort both halves."""
        for _, writer in (self._near, self._far):
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        try:
            while data := await reader.read(_CHUNK):
                await self._proxy.passes(way)
                if not self.is_frozen:
                    writer.write(data)
                    await writer.drain()
            await self._proxy.passes(way)  # a cut holds the end of a connection back, too
        except OSError:
            return
