"""A coordinator that is killed at each of its points, on the way forward and back, continues after its restart."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.conformance.world import RabbitWorld, settings_for
from tests.docs.commands import environment
from tests.docs.pages import PROJECT
from tests.eventually import eventually
from tests.example_sagas.orchestrated_travel import COORDINATOR
from tests.servers import Server
from toolkit.client.database_client import DatabaseClient
from toolkit.errors import UnroutableError
from toolkit.protocol.invariants import violations_of
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.timeline import merge

TRIP = "trip-1"
#: A busy machine takes long to start Python.
PATIENCE = 60
HANDLED = ("delivered", "fenced", "step-written", "log-written", "outbox-written", "commit-sent", "committed", "acked")
SENT = ("published", "confirmed", "deleted")


@pytest.fixture
async def world(rabbitmq: Server, tmp_path: Path, prefix: str) -> AsyncIterator[RabbitWorld]:
    """The trip's three services, asked by a coordinator that does not run yet."""

    async def database_of(_: str) -> None:
        return None

    settings = settings_for(tmp_path, broker_url=rabbitmq.url, exchange=prefix, asked_by=COORDINATOR)
    found = RabbitWorld(settings, database_of)
    await found.start()
    yield found
    await found.stop()
    await found.sweep()


@asynccontextmanager
async def coordinator(world: RabbitWorld, **armed: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the coordinator in a process of its own, which ends with the block."""
    settings = world.settings
    variables = environment(
        SAGA_BROKER_URL=settings.broker_url,
        SAGA_EXCHANGE=settings.exchange,
        SAGA_DATA_DIR=str(settings.data_dir),
        SAGA_RELAY_LEASE="1",
        SAGA_RELAY_POLL="0.2",
        SAGA_HTTP_PORT="0",
        SAGA_LOG_LEVEL="error",
        **armed,
    )
    command = (sys.executable, "-m", "tests.end_to_end.coordinator_process")
    process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, env=variables)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE)


async def log_of_coordinator(world: RabbitWorld) -> list[LogEntry]:
    """Return the coordinator's entries, from its database."""
    client = DatabaseClient(COORDINATOR, world.settings.database_for(COORDINATOR))
    try:
        return list(await client.entries(TRIP))
    finally:
        await client.close()


async def has_ended(world: RabbitWorld) -> bool:
    """Whether the coordinator's own stream of the trip has ended, too."""
    states = [entry.to_state for entry in await log_of_coordinator(world) if entry.step == "trip_plan"]
    return "confirmed" in states or "failed" in states


async def killed_at(world: RabbitWorld, **armed: str) -> None:
    """Start a trip, let the coordinator die at this point, restart it, and return when the trip has ended."""
    async with coordinator(world, **armed) as process:
        await eventually(lambda: _is_requested(world), within=PATIENCE, what="the coordinator's binding")
        assert await asyncio.wait_for(process.wait(), PATIENCE) == -signal.SIGKILL
    async with coordinator(world):
        await eventually(lambda: has_ended(world), within=PATIENCE, what="the trip's end")
        await world.quiet()


async def _is_requested(world: RabbitWorld) -> bool:
    try:
        await world.request(TRIP)
    except UnroutableError:
        return False
    return True


async def violations(world: RabbitWorld) -> list[str]:
    """Return what is wrong with the trip by all logs."""
    logs = [await world.log(service.name, TRIP) for service in world.services]
    return [each.text for each in violations_of(TRIP, merge([*logs, await log_of_coordinator(world)]))]


@pytest.mark.parametrize("point", [*HANDLED, *SENT])
async def test_a_killed_coordinator_goes_on_asking(world: RabbitWorld, point: str) -> None:
    await killed_at(world, SAGA_CRASH_AT=point)

    assert await world.state(TRIP) == "Completed"
    assert await violations(world) == []
    assert await world.effects("desk", TRIP) == ["ticket issued"]


@pytest.mark.parametrize("point", HANDLED)
async def test_a_killed_coordinator_goes_on_undoing(world: RabbitWorld, point: str) -> None:
    world.script.always("issue_ticket", "refuse", TRIP)

    await killed_at(world, SAGA_CRASH_AT=point, SAGA_CRASH_ON="compensating")

    assert await world.state(TRIP) == "Failed"
    assert await violations(world) == []
    assert await world.effects("hotel", TRIP) == ["room booked", "room 12 cancelled"]
    assert await world.effects("flight", TRIP) == ["flight booked", "flight cancelled"]
