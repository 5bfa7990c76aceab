"""A service that holds the digests of its tokens: it verifies the tokens, and what it holds opens no service."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.end_to_end.alone import Running, running
from tests.end_to_end.test_http_access import READ_TOKEN, TOKEN, WRITE, client
from tests.servers import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


def digest_of(token: str) -> str:
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


HELD = (digest_of(TOKEN), digest_of(READ_TOKEN))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(rabbitmq: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("digests")
    setting = {"SAGA_HTTP_HOST": "0.0.0.0"}
    for name, text in zip(("SAGA_API_TOKEN", "SAGA_API_READ_TOKEN"), HELD, strict=True):
        (folder / name).write_text(f"{text}\n")
        setting[f"{name}_DIGEST_FILE"] = str(folder / name)
    async with running("payment", rabbitmq.url, folder, **setting) as service:
        yield service


async def answers(service: Running, token: str) -> tuple[int, int]:
    """Return how the service answers a write and a read with this token."""
    async with client(service, token) as asking:
        written: httpx.Response = await asking.post("/dead-letters/redrive", json=WRITE)
        return written.status_code, (await asking.get("/sagas")).status_code


async def test_the_tokens_open_what_their_digests_verify(service: Running) -> None:
    assert await answers(service, TOKEN) == (200, 200)
    assert await answers(service, READ_TOKEN) == (403, 200)


@pytest.mark.parametrize("held", [*HELD, *(each.removeprefix("sha256:") for each in HELD)])
async def test_a_taken_over_service_can_present_no_token(service: Running, held: str) -> None:
    assert await answers(service, held) == (401, 401)
