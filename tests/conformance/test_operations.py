"""Replay, nudge and abort by hand: harmless twice, and audited."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from tests.conformance.operators import ADA, audited, completed, everything, replay, with_a_broker, write
from tests.conformance.world import RabbitWorld, World
from tests.eventually import eventually
from tests.example_sagas.travel import RoomBooked, TicketIssued
from toolkit.declaration.events import SagaState
from toolkit.operations import sagas


async def test_a_replay_repairs_a_lost_event(world: World) -> None:
    await write(world, "hotel", completed("hotel", "book_room", RoomBooked(trip_id="trip-1", room="12")))

    await replay(world, "trip-1")
    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert await world.state("trip-1") == "Completed"
    assert await world.notes("hotel", "trip-1") == ["replayed"]
    assert await world.states("hotel", "trip-1") == ["completed", "confirmed"]
    assert await audited(world, "hotel") == [("ada@desk", "replay", "the airline is back", "trip-1")]


async def test_a_replay_repairs_a_lost_end(world: World) -> None:
    await write(world, "hotel", completed("hotel", "book_room", RoomBooked(trip_id="trip-1", room="12")))
    ending = completed("desk", "issue_ticket", TicketIssued(trip_id="trip-1"), saga_state=SagaState.COMPLETED)
    await write(world, "desk", ending)

    await replay(world, "trip-1", "desk")
    await eventually(lambda: world.states("desk", "trip-1"))
    await world.quiet()

    assert await world.states("hotel", "trip-1") == ["completed", "confirmed"]


@pytest.mark.parametrize("refusing", [None, "issue_ticket"])
async def test_a_replay_of_a_finished_saga_changes_nothing(world: World, refusing: str | None) -> None:
    if refusing:
        world.script.plan(refusing, "refuse")
    trip = await world.request()
    await world.quiet()
    calls, states = dict(world.script.calls), await everything(world, trip)

    await replay(world, trip)
    await world.quiet()

    assert world.script.calls == calls
    assert await everything(world, trip) == states


@with_a_broker
async def test_an_abort_by_hand_compensates_a_saga(world: RabbitWorld) -> None:
    await write(world, "hotel", completed("hotel", "book_room", RoomBooked(trip_id="trip-1", room="12")))

    done = await abort(world, "trip-1")
    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert (done.returncode, done.stdout) == (0, "")
    assert await world.state("trip-1") == "Failed"
    assert await world.effects("hotel", "trip-1") == ["room 12 cancelled"]
    assert (await world.log("flight", "trip-1"))[0].error == "the traveller is ill"


async def test_a_nudge_repairs_a_lost_event_once(world: World) -> None:
    await write(world, "hotel", completed("hotel", "book_room", RoomBooked(trip_id="trip-1", room="12")))
    hotel = world.runtimes["hotel"]

    for _ in range(2):
        await sagas.nudge(hotel.database, hotel.service, "trip-1", ADA, now=datetime.now(UTC))
    await eventually(lambda: world.state("trip-1"))
    await world.quiet()

    assert await world.state("trip-1") == "Completed"
    assert (await world.notes("hotel", "trip-1"))[0] == "nudged"
    assert world.script.calls["book_flight"] == 1
    assert (await audited(world, "hotel"))[0] == ("ada@desk", "nudge", "the airline is back", "trip-1")


async def test_an_abort_at_one_service_compensates_once(world: World) -> None:
    await write(world, "hotel", completed("hotel", "book_room", RoomBooked(trip_id="trip-1", room="12")))

    for _ in range(2):
        await sagas.abort(world.runtimes["hotel"].database, "trip-1", ADA, now=datetime.now(UTC))
    await eventually(lambda: world.state("trip-1"))
    await world.quiet()
    late = await sagas.abort(world.runtimes["hotel"].database, "trip-1", ADA, now=datetime.now(UTC))

    assert await world.state("trip-1") == "Failed"
    assert await world.effects("hotel", "trip-1") == ["room 12 cancelled"]
    assert (await world.log("flight", "trip-1"))[0].error == "the airline is back"
    assert [row.outcome for row in late.rows] == ["refused"]


async def abort(world: World, trip: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "toolkit.cli", "abort", trip, "--reason", "the traveller is ill"]
    services = ",".join(f"{name}={runtime.database.url}" for name, runtime in world.runtimes.items())
    settings = {"SAGA_BROKER_URL": world.settings.broker_url, "SAGA_EXCHANGE": world.settings.exchange}
    environment = os.environ | settings | {"SAGA_SERVICES": services}
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
