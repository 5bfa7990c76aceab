"""Servers behind TLS with a self-signed certificate, which takes down what a client sends once it is encrypted."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

CERTIFICATE = Path(__file__).parent / "certificates" / "server.crt"
_KEY = CERTIFICATE.with_suffix(".key")
#: PostgreSQL's "do you speak TLS?", and its yes and no.
_SSL_REQUEST, _YES, _NO = b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"S", b"N"


@dataclass(slots=True)
class FrontDoor:
    """What stands before a server: where it listens, and all that clients sent to it."""

    port: int = 0
    sent: bytearray = field(default_factory=bytearray)
    asked: int = 0


@asynccontextmanager
async def postgres_front(host: str, port: int, *, speaks_tls: bool = True) -> AsyncIterator[FrontDoor]:
    """Listen with TLS, as PostgreSQL does it, before the real one that speaks none."""
    front = FrontDoor()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(len(_SSL_REQUEST))
        if first == _SSL_REQUEST:
            front.asked += 1
            writer.write(_YES if speaks_tls else _NO)
            await writer.drain()
            if speaks_tls:
                await writer.start_tls(_context())
            first = b""
        await _relay(front, reader, writer, host, port, first)

    async with _listening(front, serve):
        yield front


@asynccontextmanager
async def amqps_front(host: str, port: int) -> AsyncIterator[FrontDoor]:
    """Listen with TLS before the real broker."""
    front = FrontDoor()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _relay(front, reader, writer, host, port, b"")

    async with _listening(front, serve, tls=_context()):
        yield front


@asynccontextmanager
async def _listening(
    front: FrontDoor,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[None]:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):  # a client that does not trust us leaves
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=tls)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()


async def _relay(
    front: FrontDoor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, first: bytes
) -> None:
    up_reader, up_writer = await asyncio.open_connection(host, port)

    async def up() -> None:
        data = first
        while data := data or await reader.read(65_536):
            front.sent += data
            up_writer.write(data)
            data = b""
        up_writer.close()

    async def down() -> None:
        while data := await up_reader.read(65_536):
            writer.write(data)
        writer.close()

    await asyncio.gather(up(), down(), return_exceptions=True)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, _KEY)
    return context
