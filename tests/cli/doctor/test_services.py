"""`saga doctor` at running services: readiness, tokens, clocks and contracts."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from services.payment.app import app as payment
from services.shipping.app import app as shipping
from tests.cli.conftest import PROJECT, TOKEN, served
from tests.cli.doctor.findings import found, only, unchecked
from toolkit.configuration.environment import DEMO_TOKEN
from toolkit.declaration.contract import Contract


@contextmanager
def running(contract: Contract, *, ahead: timedelta = timedelta(0), ready: bool = True) -> Iterator[str]:
    """Run an API with this contract, on a machine whose clock is ahead."""

    def now() -> datetime:
        return datetime.now(UTC) + ahead

    async def readyz(_: Request) -> JSONResponse:
        parts = {"broker": ready, "database": True, "relay": True}
        headers = {"date": format_datetime(now(), usegmt=True)}
        return JSONResponse(parts, status_code=200 if ready else 503, headers=headers)

    async def its_contract(_: Request) -> JSONResponse:
        return JSONResponse(json.loads(contract.model_dump_json()))

    async def stats(_: Request) -> JSONResponse:
        return JSONResponse({"service": contract.service, "at": now().isoformat()})

    async def dead_letter(_: Request) -> JSONResponse:
        return JSONResponse({"error": "no token is set"}, status_code=403)

    routes = [Route("/readyz", readyz), Route("/contract", its_contract), Route("/stats", stats)]
    application = Starlette(routes=[*routes, Route("/dead-letters/{id}", dead_letter)])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, date_header=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def of(*urls: str) -> list[str]:
    named = [f"--service={service.name}={url}" for service, url in zip((payment, shipping), urls, strict=False)]
    return [*named, *("payment", "shipping")[: len(urls)]]


def changed(contract: Contract, name: str, **changes: Any) -> Contract:
    event = contract.events[name].model_copy(update=changes)
    return contract.model_copy(update={"events": contract.events | {name: event}})


def test_two_versions_of_an_event_are_found(doctor, embedded):
    newer = changed(Contract.of(payment), "PaymentProcessed", version=2)
    with running(newer) as first, running(Contract.of(shipping)) as second:
        row = only(doctor(*of(first, second)), "event version")

    assert (row["service"], row["found"]) == ("shipping", "PaymentProcessed is version 2 in payment, 1 in shipping")
    assert row["cure"] == "build shipping with the others' events, and restart it"


def test_two_schemas_of_one_version_are_found(doctor, embedded):
    other = changed(Contract.of(payment), "PaymentProcessed", json_schema={"type": "object"})
    with running(other) as first, running(Contract.of(shipping)) as second:
        row = only(doctor(*of(first, second)), "event version")

    assert row["found"] == "PaymentProcessed has one version, 1, and different fields in payment, shipping"


def test_two_releases_of_the_toolkit_are_advice(doctor, embedded):
    older = Contract.of(payment).model_copy(update={"toolkit_version": "0.0.9"})
    with running(older) as first, running(Contract.of(shipping)) as second:
        row = only(doctor(*of(first, second)), "release", severity="advice")

    assert row["found"].startswith("services have different releases: 0.0.9: payment; ")


def test_a_service_whose_clock_is_ahead_is_found(doctor, embedded):
    with running(Contract.of(payment), ahead=timedelta(seconds=30)) as first, running(Contract.of(shipping)) as second:
        row = only(doctor(*of(first, second)), "clock")

    assert row["service"] == "payment"
    assert row["found"] in [
        f"the clock of payment is {n} s or more ahead of that of this machine" for n in (28, 29, 30)
    ]


def test_the_clock_of_the_majority_is_right(doctor, embedded):
    ahead = timedelta(minutes=5)
    with running(Contract.of(payment), ahead=ahead) as first, running(Contract.of(shipping), ahead=ahead) as second:
        row = only(doctor(*of(first, second)), "clock")

    assert row["found"].startswith("the clock of this machine is ")
    assert row["found"].endswith(" s or more behind that of payment")


def test_a_service_without_its_broker_is_found(doctor, embedded):
    with running(Contract.of(payment), ready=False) as url:
        row = only(doctor(*of(url)), "service ready")

    assert row["found"] == f"{url} is without broker"


def test_a_service_that_does_not_answer_is_unchecked(doctor, embedded):
    row = unchecked(doctor(*of("http://127.0.0.1:1")), "service ready")

    assert row["found"].startswith("http://127.0.0.1:1 does not answer as a service does: ")


def test_another_server_is_not_taken_for_a_service(doctor, embedded):
    with running(Contract.of(payment)) as url:
        row = unchecked(doctor(*of(f"{url}/elsewhere")), "service ready")

    assert " does not answer as a service does: " in row["found"]


def test_a_reachable_service_without_a_token_is_found(doctor, embedded):
    with running(Contract.of(payment)) as url:
        row = only(doctor(*of(url.replace("127.0.0.1", "0.0.0.0"))), "service token")

    assert row["found"].endswith(" is reached from other machines, and reading needs no token")


def test_only_a_probe_tries_the_demo_token(doctor, embedded, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.cli.conftest.TOKEN", DEMO_TOKEN)
    assert f"SAGA_API_TOKEN:-{DEMO_TOKEN}}}" in (PROJECT / "compose.yaml").read_text()
    with served("payment", f"sqlite:///{tmp_path}/payment.db") as url:
        services = of(url.replace("127.0.0.1", "0.0.0.0"))
        row = only(doctor(*services, "--probe"), "demo token")
        assert found(doctor(*services), "demo token") == []

    assert row["found"].endswith(f" accepts the public token {DEMO_TOKEN}")
    assert row["cure"] == "start payment with SAGA_API_TOKEN=$(openssl rand -hex 32)"


def test_a_refused_token_is_found(doctor, embedded, serve, tmp_path, monkeypatch):
    url = serve("payment", f"sqlite:///{tmp_path}/payment.db")
    monkeypatch.setenv("SAGA_API_TOKEN", "yesterday's")

    row = only(doctor(*of(url)), "service token")

    assert row["found"] == f"{url} refuses our SAGA_API_TOKEN"
    monkeypatch.setenv("SAGA_API_TOKEN", TOKEN)
    assert found(doctor(*of(url)), "service token") == []
