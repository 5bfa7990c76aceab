"""Access to a service that other machines reach: tokens, host names and bounds."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.cli.conftest import command
from tests.end_to_end.alone import Running, running
from tests.servers import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN, READ_TOKEN = "a-token-for-everything", "a-token-for-reading"
WRITE = {"reason": "the gateway is back", "all": True, "dry_run": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(rabbitmq: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The payment service, listening to all machines."""
    setting = {
        "SAGA_HTTP_HOST": "0.0.0.0",
        "SAGA_HTTP_NAMES": "pay.example, *.cluster.local",
        "SAGA_API_TOKEN": TOKEN,
        "SAGA_API_READ_TOKEN": READ_TOKEN,
    }
    async with running("payment", rabbitmq.url, tmp_path_factory.mktemp("access"), **setting) as service:
        yield service


def client(service: Running, token: str | None = None, *, address: str = "127.0.0.1") -> httpx.AsyncClient:
    """Return a client at this address with the token."""
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{service.api}",
        headers={"Authorization": f"Bearer {token}"} if token else {},
        transport=httpx.AsyncHTTPTransport(local_address=address, verify=False),
        timeout=30,
    )


async def test_each_path_takes_its_documented_tokens(service: Running) -> None:
    async with client(service, READ_TOKEN) as caller:
        paths = (await caller.get("/openapi.json")).json()["paths"]

    for path, verbs in paths.items():
        ((verb, operation),) = verbs.items()
        names = {name for each in operation.get("security", ()) for name in each}
        answers = {}
        for name, token in (("none", None), ("readToken", READ_TOKEN), ("token", TOKEN)):
            async with client(service, token) as caller:
                answers[name] = (await caller.request(verb, path.replace("{id}", "nothing"), json={})).status_code
        lets_in = {name for name, code in answers.items() if code not in (401, 403)}
        assert lets_in == (names | {"token"} if names else {"none", "readToken", "token"}), path
        assert {str(code) for code in answers.values()} <= operation["responses"].keys(), path
    open_paths = {path for path, verbs in paths.items() if not any(each.get("security") for each in verbs.values())}
    assert open_paths == {"/healthz", "/readyz"}


async def test_the_health_listener_needs_no_token(service: Running) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.health}", trust_env=False) as caller:
        answers = {path: (await caller.get(path)).status_code for path in ("/healthz", "/readyz", "/metrics", "/sagas")}
        foreign = await caller.get("/metrics", headers={"Host": "evil.example"})

    assert answers == {"/healthz": 200, "/readyz": 200, "/metrics": 200, "/sagas": 404}
    assert foreign.status_code == 421


OURS = ("payment:8000", "PAY.example", "payment-0.shop.svc.cluster.local", "10.0.0.7", "[::1]:80")
ANOTHERS = (
    "evil.example", "pay.example.evil.example", "cluster.local", "10.0.0.7.evil.example", "[::", "[evil.example]", "",
    "evil.example:80@127.0.0.1", "evil.example@127.0.0.1", "127.0.0.1/evil.example", "127.0.0.1:port",
)  # fmt: skip


@pytest.mark.parametrize("name", OURS)
async def test_it_answers_to_names_and_addresses(service: Running, name: str) -> None:
    async with client(service, READ_TOKEN) as caller:
        assert (await caller.get("/sagas", headers={"Host": name})).status_code == 200


@pytest.mark.parametrize("name", ANOTHERS)
async def test_a_foreign_host_name_is_refused(service: Running, name: str) -> None:
    async with client(service, READ_TOKEN) as caller:
        answer = await caller.get("/sagas", headers={"Host": name})

    assert (answer.status_code, "SAGA_HTTP_NAMES" in answer.json()["error"]) == (421, True)


async def test_wrong_tokens_delay_their_own_client_only(service: Running) -> None:
    async with (
        client(service, "a guess", address="127.0.0.66") as guessing,
        client(service, READ_TOKEN) as reading,
        client(service, TOKEN) as writing,
    ):
        guesses = [asyncio.create_task(guessing.get("/sagas")) for _ in range(30)]
        await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
        begun_at, waiting = time.monotonic(), sum(not each.done() for each in guesses)
        honest = [await reading.get("/sagas"), await writing.post("/dead-letters/redrive", json=WRITE)]
        took = time.monotonic() - begun_at
        answers = await asyncio.gather(*guesses)
        at_once = await asyncio.gather(*(reading.get("/sagas") for _ in range(30)))
        wrong_kind = await reading.get("/sagas", headers={"Authorization": "Basic YTpi"})

    refused = [each for each in answers if each.status_code == 429]
    assert waiting
    assert [each.status_code for each in honest] == [200, 200]
    assert took < max(each.elapsed.total_seconds() for each in answers)
    assert {each.status_code for each in answers} == {401, 429}
    assert len(refused) >= 20
    assert {each.headers["retry-after"] for each in refused} == {"2"}
    assert "Too many guesses" in refused[0].json()["error"]
    assert {each.status_code for each in at_once} == {200}
    assert wrong_kind.status_code == 401


@pytest.mark.parametrize("token", [None, "a guess", READ_TOKEN, TOKEN])
@pytest.mark.parametrize("is_chunked", [True, False], ids=["chunked", "declared"])
async def test_a_large_body_is_refused(service: Running, token: str | None, is_chunked: bool) -> None:
    before = service.megabytes()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(1_000_000)

    length = {} if is_chunked else {"Content-Length": "64000000"}
    async with client(service, token, address="127.0.0.67") as caller:
        try:
            answer = await caller.post("/prune", content=body(), headers=length)
        except httpx.TransportError:  # it may be closed before the whole of it is sent
            answer = None

    assert service.megabytes() < before + 20
    if answer is not None:
        assert answer.status_code == (413 if token == TOKEN or not is_chunked else 403 if token == READ_TOKEN else 401)
        assert answer.json()["error"]


async def test_the_command_line_reads_with_the_read_token(service: Running) -> None:
    async def run(**tokens: str) -> tuple[int | None, str]:
        line = command("ls", "--service", f"payment=http://127.0.0.1:{service.api}")
        process = await asyncio.create_subprocess_exec(*line, env=os.environ | tokens, stderr=asyncio.subprocess.PIPE)
        complaint = (await process.communicate())[1].decode()
        return process.returncode, complaint

    with_token, without = await asyncio.gather(run(SAGA_API_READ_TOKEN=READ_TOKEN), run())

    assert with_token[0] == 0
    assert without[0] == 3
    assert "wants a token: set SAGA_API_READ_TOKEN, or SAGA_API_TOKEN, as payment has it" in without[1]
