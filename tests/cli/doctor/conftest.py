"""The files, services and the broker that the doctor's tests misconfigure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.payment.app import app as payment
from services.shipping.app import app as shipping
from tests.cli.conftest import Saga
from tests.cli.doctor.spoilt_broker import LOGIN, Broker, started, sweep
from tests.cli.doctor.spoilt_databases import make_tables
from tests.servers import docker_is_there


@pytest.fixture
def files(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The files of payment and shipping with all their tables; the services are embedded."""
    monkeypatch.setenv("SAGA_BROKER_URL", "embedded")
    paths = {each.name: data_dir / f"{each.name}.db" for each in (payment, shipping)}
    for service in (payment, shipping):
        asyncio.run(make_tables(f"sqlite:///{paths[service.name]}", service))
    return paths


@pytest.fixture
def embedded(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_BROKER_URL", "embedded")


@pytest.fixture
def doctor(saga: Saga) -> Callable[..., Any]:
    """The doctor's findings as JSON."""
    return lambda *arguments: saga("doctor", *arguments, "-o", "json")


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    if not docker_is_there():
        pytest.skip("no Docker engine answers on this machine, and nobody else's broker shall be spoilt")
    with started() as broker:
        yield broker


@pytest.fixture
def exchange(broker: Broker, prefix: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An exchange's name of the test's own; everything that was declared under it is removed."""
    monkeypatch.setenv("SAGA_BROKER_URL", broker.url())
    monkeypatch.setenv("SAGA_MANAGEMENT_URL", broker.management.replace("://", f"://{LOGIN[0]}:{LOGIN[1]}@"))
    monkeypatch.setenv("SAGA_EXCHANGE", prefix)
    yield prefix
    asyncio.run(sweep(broker.url(), prefix))
