"""A lost `SagaEnded` is repaired for each service: one that missed it asks, and one that knows it answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conformance.world import message
from tests.example_sagas.travel import Script, TripRequested, services
from toolkit import Settings
from toolkit.declaration.events import SagaEnded
from toolkit.messaging.envelope import abort_request
from toolkit.testing.simulation.simulation import Simulation, simulation
from toolkit.testing.simulation.wire import Parcel

SERVICES = ("hotel", "flight", "desk")
#: Long enough that a simulated day runs fast.
TICK = timedelta(minutes=5)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def world(script: Script, tmp_path: Path) -> Iterator[Simulation]:
    seldom = Settings(data_dir=tmp_path, relay_poll=timedelta(minutes=1), watch_every=TICK)
    with simulation(services(script), seldom) as world:
        yield world


@pytest.mark.parametrize("refusing", [None, "book_room", "book_flight", "issue_ticket"])
@pytest.mark.parametrize("missing", [*((each,) for each in SERVICES), ("hotel", "flight"), SERVICES], ids="-".join)
def test_every_service_learns_an_end_that_it_missed(
    world: Simulation, script: Script, refusing: str | None, missing: tuple[str, ...]
) -> None:
    if refusing:
        script.plan(refusing, "refuse")
    request(world)
    run(world, losing=missing)
    assert all(SagaEnded.__name__ not in taken(world, each) for each in missing)

    pass_time(world, timedelta(minutes=40))

    assert all_closed(world, "Failed" if refusing else "Completed")
    assert nothing_overdue(world)


def test_the_ending_service_answers_a_late_abort(world: Simulation) -> None:
    request(world)
    run(world, losing=SERVICES)

    abort = abort_request("trip", "trip-1", "overdue", now=world.clock.now())
    for _ in range(50):
        world.wire.hold(abort)
    run(world)
    world.advance(timedelta(seconds=1))  # ends of sagas wait a moment for others

    assert all_closed(world, "Completed")
    assert ends_sent(world) == 2, "the first end, and one answer"
    assert not [each for each in world.wire.seen if each.message.type.endswith("Refused")]


def test_copies_of_one_nudge_are_answered_once(world: Simulation) -> None:
    request(world)
    run(world, losing=("flight",))
    before = ends_sent(world)
    pass_time(world, timedelta(minutes=15), deliver=False)

    for nudge in nudges(world) * 200:
        world.wire.waiting.append(Parcel(nudge.service, nudge.message))
    run(world)

    assert ends_sent(world) == before + len({each.message.headers["nudge"] for each in nudges(world)})


def test_copies_without_a_nudge_are_answered_by_nothing(world: Simulation) -> None:
    request(world)
    run(world)
    before = ends_sent(world)

    for parcel in [each for each in world.wire.seen if each.message.type != SagaEnded.__name__]:
        world.wire.waiting.append(Parcel(parcel.service, parcel.message))
    run(world)

    assert ends_sent(world) == before


def test_a_lost_abort_is_requested_again(world: Simulation) -> None:
    request(world)
    run(world, losing=("hotel",))

    pass_time(world, timedelta(minutes=70), lost=("RoomBooked", "AbortRequested", "SagaEnded"))
    assert not all_closed(world, "Completed")
    pass_time(world, timedelta(minutes=70), lost=("RoomBooked",))

    assert all_closed(world, "Completed")


def test_an_ending_service_repairs_itself_from_its_log(world: Simulation) -> None:
    request(world)
    run(world, losing=("desk",))

    pass_time(world, timedelta(minutes=20))

    assert all_closed(world, "Completed")
    assert nudges(world) == []


def request(world: Simulation) -> None:
    world.wire.hold(message(TripRequested(trip_id="trip-1"), "trip-1", occurred_at=world.clock.now()))


def run(world: Simulation, *, losing: tuple[str, ...] = (), lost: tuple[str, ...] = (SagaEnded.__name__,)) -> None:
    """Deliver all messages, except the lost types to these services."""
    while True:
        gone = [each for each in world.wire.waiting if each.service in losing and each.message.type in lost]
        for parcel in gone:
            world.wire.waiting.remove(parcel)
        if not world.wire.waiting:
            return
        world.deliver(world.wire.waiting[0])


def pass_time(world: Simulation, span: timedelta, *, lost: tuple[str, ...] = (), deliver: bool = True) -> None:
    """Let time pass, and deliver the messages sent meanwhile, except the lost types."""
    for _ in range(span // TICK):
        world.advance(TICK)
        if deliver:
            run(world, losing=SERVICES, lost=lost)


def taken(world: Simulation, service: str) -> list[str]:
    return [row["event_type"] for row in world.rows(service, "SELECT event_type FROM saga_log ORDER BY id")]


def all_closed(world: Simulation, end: str) -> bool:
    """Whether each stream of each service records how the saga ended."""
    query = "SELECT step, max(saga_state = ?) AS is_closed, max(event_type = 'SagaEnded') AS was_notified FROM saga_log"
    streams = [row for name in SERVICES for row in world.rows(name, f"{query} GROUP BY step", end)]
    return bool(streams) and all(row["is_closed"] and row["was_notified"] for row in streams)


def nothing_overdue(world: Simulation) -> bool:
    return not any(world.rows(name, "SELECT 1 FROM saga_overdue") for name in SERVICES)


def ends_sent(world: Simulation) -> int:
    ids = {each.message.message_id for each in world.wire.seen if each.message.type == SagaEnded.__name__}
    return len(ids)


def nudges(world: Simulation) -> list:
    return [each for each in world.wire.seen if each.message.headers.get("nudge")]
