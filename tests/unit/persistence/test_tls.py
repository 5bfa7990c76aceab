"""A remote server receives no password before it has proved its identity: PostgreSQL and the broker alike.

The servers are real; before each runs a proxy that speaks TLS with a self-signed certificate, and records what clients
send after encryption. `127.1` is this machine by a name that no rule takes for local.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest
from sqlalchemy.engine import make_url

from tests.example_sagas.loans import Clerk, library
from tests.servers import Server
from tests.tls import CERTIFICATE, FrontDoor, amqps_front, postgres_front
from toolkit.clock import SystemClock
from toolkit.configuration.settings import Settings
from toolkit.errors import DatabaseUnavailableError, SettingsError
from toolkit.persistence.database import Database
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.transport.rabbitmq.connection import as_unreachable
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

ELSEWHERE, HERE = "127.1", "127.0.0.1"
PASSWORD = "h-u-s-h"


@pytest.fixture
async def place(postgresql: Server) -> tuple[str, int]:
    """The address of the real PostgreSQL."""
    url = make_url(postgresql.url)
    return url.host or HERE, url.port or 5432


def url_of(postgresql: Server, host: str, front: FrontDoor, query: str = "") -> str:
    """Return the database's URL through the proxy."""
    url = make_url(postgresql.url).set(host=host, port=front.port)
    return url.render_as_string(hide_password=False) + query


async def ping(url: str) -> None:
    """Connect, and close."""
    database = Database(url)
    try:
        await database.ping()
    finally:
        await database.close()


async def test_an_unproved_remote_server_receives_nothing(postgresql, place):
    async with postgres_front(*place) as front:
        with pytest.raises(DatabaseUnavailableError, match=r"not trusted \(self-signed certificate\); .*sslrootcert="):
            await ping(url_of(postgresql, ELSEWHERE, front))

    assert front.asked == 1
    assert front.sent == b""


@pytest.mark.parametrize("query", [f"?sslrootcert={CERTIFICATE}", f"?sslmode=verify-ca&sslrootcert={CERTIFICATE}"])
async def test_a_proved_remote_server_is_used(postgresql, place, query):
    async with postgres_front(*place) as front:
        await ping(url_of(postgresql, ELSEWHERE, front, query))

    assert b"user" in front.sent


async def test_a_certificate_for_another_name_proves_nothing(postgresql, place):
    async with postgres_front(*place) as front:
        url = url_of(postgresql, "127.0.1", front, f"?sslrootcert={CERTIFICATE}")
        with pytest.raises(DatabaseUnavailableError, match="not trusted"):
            await ping(url)

    assert front.sent == b""


async def test_a_remote_server_without_tls_receives_nothing(postgresql, place):
    async with postgres_front(*place, speaks_tls=False) as front:
        with pytest.raises(DatabaseUnavailableError, match=r"it speaks no TLS; .*sslmode=disable"):
            await ping(url_of(postgresql, ELSEWHERE, front))

    assert front.asked == 1
    assert front.sent == b""


@pytest.mark.parametrize(("mode", "asked"), [("require", 1), ("disable", 0)])
async def test_an_explicit_sslmode_accepts_an_unproved_server(postgresql, place, mode, asked):
    async with postgres_front(*place) as front:
        await ping(url_of(postgresql, ELSEWHERE, front, f"?sslmode={mode}"))

    assert front.asked == asked
    assert b"user" in front.sent


async def test_a_local_server_needs_no_proof(postgresql, place):
    async with postgres_front(*place, speaks_tls=False) as front:
        await ping(url_of(postgresql, HERE, front))

    assert b"user" in front.sent


async def test_sslmode_require_gives_anyone_the_password():
    """The reason for the default: an unproved server may ask for the plain password."""

    async def ask_for_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(b"R\x00\x00\x00\x08\x00\x00\x00\x03")  # PostgreSQL's request for the password in plain text
        await reader.read(1_000)
        writer.close()

    async with await asyncio.start_server(ask_for_it, HERE, 0) as impostor:
        port = impostor.sockets[0].getsockname()[1]
        async with postgres_front(HERE, port) as front:
            for query, is_handed in (("?sslmode=require", True), ("", False)):
                front.sent.clear()
                with pytest.raises(DatabaseUnavailableError):
                    await ping(f"postgresql://ada:{PASSWORD}@{ELSEWHERE}:{front.port}/orders{query}")
                assert (PASSWORD.encode() in front.sent) is is_handed


async def test_a_service_refuses_an_unproved_database(postgresql, place, tmp_path):
    async with postgres_front(*place) as front:
        settings = Settings(
            database_url=url_of(postgresql, ELSEWHERE, front), data_dir=tmp_path, broker_url="embedded", demo=True
        )
        host = ServiceRuntime(library(Clerk()), settings, RabbitPublisher(settings), clock=SystemClock())
        with pytest.raises(SettingsError, match=r"^SAGA_DATABASE_URL can't be used: its certificate is not trusted"):
            await host.prepare()
        await host.stop()


@pytest.mark.parametrize("name", ["no-such.crt", "empty.crt"])
async def test_a_certificate_that_cannot_be_read_is_named(tmp_path, name):
    (tmp_path / "empty.crt").touch()

    with pytest.raises(SettingsError, match=rf"the certificate \S+{name} for PostgreSQL can't be used"):
        Database(f"postgresql://ada@db/orders?sslrootcert={tmp_path / name}")


async def test_an_unproved_broker_is_sent_nothing(rabbitmq):
    broker = urlsplit(rabbitmq.url)
    async with amqps_front(broker.hostname or HERE, broker.port or 5672) as front:
        url = f"amqps://{broker.username}:{broker.password}@localhost:{front.port}/"
        publisher = RabbitPublisher(Settings(broker_url=url))
        with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await publisher.connect()
        assert "by ?cafile=FILE" in str(as_unreachable(caught.value))
        assert front.sent == b""

        trusting = RabbitPublisher(Settings(broker_url=f"{url}?cafile={CERTIFICATE}"))
        await trusting.connect()
        await trusting.close()
        assert front.sent.startswith(b"AMQP")
