"""One suite for every transport on each of its databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.world import Declare, EmbeddedWorld, RabbitWorld, World, settings_for
from tests.conftest import PostgresDatabases
from tests.example_sagas import approval, conference, parallel_trip
from tests.example_sagas.orchestrated_travel import COORDINATOR, orchestrated_services, parallel_services
from tests.example_sagas.travel import Script, services, trip_saga
from tests.example_sagas.vouchers import services_of_both
from tests.servers import Server
from toolkit import Service

#: One variant reads the log before each step; the others only where a message needs it.
VARIANTS = ["embedded-sqlite", "embedded-sqlite-reads-first", "rabbit-sqlite", "rabbit-postgresql"]

#: Long enough for a question to be announced before a busy machine's watch finds it overdue, or aborts it.
OVERDUE_AFTER, ABORT_AFTER = timedelta(seconds=2), timedelta(seconds=5)


@pytest.fixture(params=VARIANTS)
async def world(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[World]:
    """The trip's services, running."""
    async with _running(services, request, tmp_path, prefix) as found:
        yield found


@pytest.fixture(params=["embedded-sqlite", "rabbit-sqlite", "rabbit-postgresql"])
async def shop_world(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[World]:
    """The same services, running, and a service without steps, whose application starts trips."""

    def declare(script: Script) -> list[Service]:
        return [*services(script), Service(name="shop", starts=[trip_saga])]

    async with _running(declare, request, tmp_path, prefix) as found:
        yield found


@pytest.fixture(params=VARIANTS)
async def shared_world(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[World]:
    """The same services, running, each with a part in a second saga."""
    async with _running(services_of_both, request, tmp_path, prefix) as found:
        yield found


@pytest.fixture(params=["embedded-sqlite", "rabbit-sqlite", "rabbit-postgresql"])
async def orchestrated_world(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[World]:
    """The trip's services, running, and a coordinator that asks their steps."""
    async with _running(orchestrated_services, request, tmp_path, prefix, asked_by=COORDINATOR) as found:
        yield found


@pytest.fixture(params=VARIANTS)
async def holidays(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[World]:
    """The services of a trip with parallel branches, running."""
    async with _running(parallel_trip.services, request, tmp_path, prefix) as found:
        yield found


@pytest.fixture(params=VARIANTS)
async def conferences(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[World]:
    """The services of a saga with a compensation that joins, running; the external steps are external."""
    async with _running(partial(conference.services, is_external=True), request, tmp_path, prefix) as found:
        yield found


@pytest.fixture(params=["embedded-sqlite", "rabbit-sqlite", "rabbit-postgresql"])
async def purchases(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[World]:
    """The services of a saga that waits for a person's answer, running."""
    async with _running(approval.services, request, tmp_path, prefix) as found:
        yield found


@pytest.fixture(params=["rabbit-sqlite", "rabbit-postgresql"])
async def impatient(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[World]:
    """The same services, running, with a watch that waits for seconds."""
    patience = {"overdue_after": OVERDUE_AFTER, "abort_after": ABORT_AFTER}
    async with _running(approval.services, request, tmp_path, prefix, **patience) as found:
        yield found


@pytest.fixture(params=["embedded-sqlite", "rabbit-sqlite", "rabbit-postgresql"])
async def parallel_world(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[World]:
    """The trip's services, running, and a coordinator that asks two of their steps at once."""
    async with _running(parallel_services, request, tmp_path, prefix, asked_by=COORDINATOR) as found:
        yield found


@pytest.fixture(params=["embedded-sqlite", "rabbit-sqlite", "rabbit-postgresql"])
async def reminding(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[World]:
    """The same services, running; the step that waits reminds each second."""
    declare = partial(approval.services, remind=timedelta(seconds=1))
    async with _running(declare, request, tmp_path, prefix) as found:
        yield found


@asynccontextmanager
async def _running(
    declare: Declare, request: pytest.FixtureRequest, tmp_path: Path, prefix: str, **facts: Any
) -> AsyncIterator[World]:
    if request.param.startswith("embedded-sqlite"):
        settings = settings_for(tmp_path, reads_first=request.param.endswith("reads-first"), **facts)
        embedded = EmbeddedWorld(settings, declare)
        await embedded.start()
        yield embedded
        await embedded.stop()
        return
    rabbitmq: Server = request.getfixturevalue("rabbitmq")
    databases: PostgresDatabases | None = None
    if request.param == "rabbit-postgresql":
        databases = request.getfixturevalue("kept_databases")
        await databases.empty()

    async def database_of(name: str) -> str | None:
        return await databases.url(name) if databases else None

    settings = settings_for(tmp_path, broker_url=rabbitmq.url, exchange=prefix, **facts)
    rabbit = RabbitWorld(settings, database_of, declare)
    await rabbit.start()
    yield rabbit
    await rabbit.stop()
    await rabbit.sweep()
