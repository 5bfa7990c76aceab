"""A proxy before PostgreSQL that counts round trips: how often the server reports that it awaits the next request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.engine import make_url

#: The type of the message by which PostgreSQL ends its answer.
_READY = b"Z"


class RoundTrips:
    """The round trips of all connections through one proxy, and the proxy's URL."""

    def __init__(self) -> None:
        self.count = 0
        self.url = ""

    async def relay_answers(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Pass the server's messages on: each has a type, and a length that counts itself."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await server.readexactly(5)
                body = await server.readexactly(int.from_bytes(head[1:], "big") - 4)
                self.count += head[:1] == _READY
                client.write(head + body)
        client.close()


async def _relay_requests(client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await client.read(65_536):
            server.write(data)
    server.close()


@asynccontextmanager
async def counted(url: str) -> AsyncIterator[RoundTrips]:
    """Run a proxy before the server of this URL."""
    place, trips = make_url(url), RoundTrips()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(place.host, place.port or 5432)
        with suppress(asyncio.CancelledError):  # at the loop's end, which asyncio would report
            await asyncio.gather(_relay_requests(reader, to_server), trips.relay_answers(from_server, writer))

    async with await asyncio.start_server(connect, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        behind = place.set(host="127.0.0.1", port=port).update_query_dict({"sslmode": "disable"})
        trips.url = behind.render_as_string(hide_password=False)
        yield trips
