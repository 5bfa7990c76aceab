"""A service's HTTP under greedy clients: real sockets, under a limit of 1,024 open files."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from tests.end_to_end.alone import Running, is_ready, running
from tests.eventually import eventually
from tests.servers import Server
from toolkit.web.server import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: More than the service may open files.
CROWD = 1_100
HALF = b"GET /sagas HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: "

Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Allow this process more open files than the service."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4_096) if hard > 0 else 4_096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(rabbitmq: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The payment service, started by `saga run` under `ulimit -n 1024`."""
    folder = tmp_path_factory.mktemp("bounds")
    async with running("payment", rabbitmq.url, folder) as service:
        yield service


@asynccontextmanager
async def crowd(port: int, sent: bytes) -> AsyncIterator[None]:
    """Connect `CROWD` clients, each after sending these bytes."""
    opened = await asyncio.gather(*(begun(port, sent) for _ in range(CROWD)))
    yield
    for each in opened:
        if each:
            each[1].transport.abort()


async def begun(port: int, sent: bytes) -> Opened | None:
    """Return a connection after sending these bytes; None when it was closed at once."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await writer.drain()
    except OSError:
        return None
    return reader, writer


async def statuses(port: int, *heads: bytes) -> list[int]:
    """Send these heads at once on one connection, the last with `Connection: close`; return the answers' statuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(heads))
    answer = await asyncio.wait_for(reader.read(), 15)
    writer.transport.abort()
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+) ", answer)]


def head(size: int, *, target: int = 0, ending: str = "close") -> bytes:
    """Return a head with a header of this size, or with a target of that one."""
    lines = f"GET /healthz?{'x' * target} HTTP/1.1", "Host: 127.0.0.1", f"Connection: {ending}", f"X: {'x' * size}"
    return "\r\n".join((*lines, "", "")).encode()


@pytest.mark.parametrize("listener", ["api", "health"])
async def test_a_large_head_in_one_piece_is_refused(service: Running, listener: str) -> None:
    port = getattr(service, listener)

    assert await statuses(port, head(16_000)) == [200]
    assert await statuses(port, head(16_400)) == [431]
    assert await statuses(port, head(1, target=20_000)) == [431]
    assert await statuses(port, head(1, ending="keep-alive"), head(20_000)) == [200, 431]


@pytest.mark.parametrize("crowded", ["api", "health"])
@pytest.mark.parametrize(
    "sent",
    [HALF, HALF.replace(b"GET /sagas", b"POST /prune").replace(b"X-Half: ", b"Content-Length: 9\r\n\r\n")],
    ids=["half a head", "half a body"],
)
async def test_half_sent_requests_block_no_other_client(service: Running, sent: bytes, crowded: str) -> None:
    async with crowd(getattr(service, crowded), sent):
        answers = [await is_ready(port) for port in (service.api, service.health)]
        files = len(os.listdir(f"/proc/{service.pid}/fd"))

    assert answers == [True, True]
    assert files < 512


async def test_the_wait_for_a_client_is_bounded(service: Running) -> None:
    port = service.api
    head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    body = b"POST /prune HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n\r\n"

    lived = await asyncio.gather(
        life(port, b""),
        life(port, HALF, b"x"),
        life(port, body % b"Content-Length: 900000", b"x"),
        life(port, body % b"Transfer-Encoding: chunked", b"1\r\nx\r\n"),
        life(port, head + b"\r\n" + HALF, b"x"),  # the second request of a connection
        life_unread(port),
        life(port, head + b"\r\n"),  # idle
    )

    assert max(lived) < 2 * PATIENCE
    assert min(lived[:-1]) > PATIENCE - 1
    assert lived[-1] < PATIENCE


async def life(port: int, first: bytes, then: bytes = b"") -> float:
    """Return how many seconds a connection lives that sends `first`, and then `then` twice a second."""
    begun_at = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    with suppress(ConnectionError):
        while time.monotonic() < begun_at + 3 * PATIENCE:
            try:
                async with asyncio.timeout(0.5):
                    if not await reader.read(65_536):
                        break
            except TimeoutError:
                writer.write(then)
    writer.close()
    return time.monotonic() - begun_at


async def life_unread(port: int) -> float:
    """Return how many seconds a connection lives whose client reads no response."""
    begun_at = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as client:
        # The responses are far larger than the sockets' buffers.
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 2_000)

        async def is_closed() -> bool:
            return not is_established(port, client.getsockname()[1])

        await eventually(is_closed, within=3 * PATIENCE, every=0.2, what="the end of the connection")
    return time.monotonic() - begun_at


def is_established(port: int, by: int) -> bool:
    """Whether the kernel has an established connection between these ports."""
    lines = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()]
    return [f"0100007F:{port:04X}", f"0100007F:{by:04X}", "01"] in lines


async def test_pipelined_requests_are_answered_in_order(service: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.api)
    paths = [b"/healthz", b"/nothing"] * 50

    writer.write(b"".join(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path for path in paths))
    writer.write(b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    answered = await reader.read(-1)
    writer.close()

    assert re.findall(rb"HTTP/1.1 (\d+)", answered) == [b"200", b"404"] * 50 + [b"404"]
