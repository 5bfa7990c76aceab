"""The simulation, on which other tests rely: time jumps, and a crash loses exactly the uncommitted rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conformance.world import message
from tests.example_sagas.travel import Script, TripRequested, services
from toolkit import Settings
from toolkit.testing import ManualClock
from toolkit.testing.simulation.simulation import Simulation, simulation
from toolkit.testing.simulation.virtual_time import VirtualLoop


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def world(script: Script, tmp_path: Path) -> Iterator[Simulation]:
    with simulation(services(script), Settings(data_dir=tmp_path, relay_poll=timedelta(seconds=30))) as world:
        yield world


def test_each_timer_fires_at_its_own_time() -> None:
    clock = ManualClock()
    loop, fired = VirtualLoop(clock), []
    for seconds in (7.7, 0.1, 3600):
        loop.call_later(seconds, lambda: fired.append(loop.time()))

    loop.advance(timedelta(minutes=1))

    assert fired == pytest.approx([0.1, 7.7], abs=1e-5)
    assert loop.time() == 60
    loop.close()


def test_a_crash_rolls_back_and_redelivers(world: Simulation, script: Script) -> None:
    script.plan("book_room", asyncio.Event().wait)
    (request,) = world.wire.hold(message(TripRequested(trip_id="trip-1"), "trip-1", occurred_at=world.clock.now()))
    world.deliver(request)

    world.crash("hotel")

    assert world.rows("hotel", "SELECT * FROM effects") == []
    assert world.wire.waiting == [request]
    world.deliver_all()
    assert [row["what"] for row in world.rows("hotel", "SELECT what FROM effects")] == ["room booked"]


def test_redeliveries_after_a_crash_keep_their_order(world: Simulation, script: Script) -> None:
    script.plan("book_room", asyncio.Event().wait)
    trips = [f"trip-{number}" for number in range(20)]
    for trip in trips:
        world.wire.hold(message(TripRequested(trip_id=trip), trip, occurred_at=world.clock.now()))
    requests = list(world.wire.waiting)
    world.deliver(*requests)

    world.crash("hotel")

    assert world.wire.waiting == requests, "the same choices lead to another world"


@pytest.mark.parametrize("stumble", ["lost", "unconfirmed", "slow"])
def test_a_failed_publish_is_repeated_after_its_lease(world: Simulation, stumble: str) -> None:
    world.wire.hold(message(TripRequested(trip_id="trip-1"), "trip-1", occurred_at=world.clock.now()))
    world.wire.stumbles.append(stumble)

    world.deliver(world.wire.waiting[0])
    world.crash("hotel")
    world.advance(timedelta(minutes=1))
    world.deliver_all()
    world.advance(timedelta(seconds=1))  # a confirmed row is deleted a little later

    sent = [parcel.message.message_id for parcel in world.wire.seen if parcel.message.type == "RoomBooked"]
    assert len(sent) == (1 if stumble == "lost" else 2)
    assert len(set(sent)) == 1
    assert world.is_quiet()


def test_a_message_whose_acknowledgement_got_lost_comes_again(world: Simulation) -> None:
    (request,) = world.wire.hold(message(TripRequested(trip_id="trip-1"), "trip-1", occurred_at=world.clock.now()))

    world.deliver(request, acknowledge=False)

    assert request in world.wire.waiting


def test_what_was_not_committed_may_not_be_sent(world: Simulation) -> None:
    sent = message(TripRequested(trip_id="trip-1"), "trip-1")
    hotel = world.processes["hotel"]
    hotel.do(hotel.way_out.publish_many([(sent, None)]))

    with pytest.raises(AssertionError, match="hotel sent TripRequested, which it has not committed"):
        world.settle()
