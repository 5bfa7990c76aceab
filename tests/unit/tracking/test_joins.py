"""What a join waits for is shown, and the order of parallel steps means nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.conformance.joined_worlds import SAGA_ID, SAGAS, settled, started, timeline, world_of
from tests.example_sagas.travel import Script
from toolkit.declaration.choreography import Choreography, as_text
from toolkit.protocol.timeline import Timeline
from toolkit.testing.simulation.simulation import Simulation
from toolkit.tracking.progress import NodeProgress, Progress, Status, progress

TRIP, DIAMOND = SAGAS["trip"], SAGAS["diamond"]


def followed(world: Simulation, joined=TRIP) -> Progress:
    """Return the progress of the world's saga."""
    known = Choreography(joined.declare(Script()))
    return progress(Timeline(SAGA_ID, timeline(world)), known, {}, now=datetime(2030, 1, 1, tzinfo=UTC))


def node(found: Progress, name: str) -> NodeProgress:
    return next(each for each in found.nodes if each.name == name)


def statuses(found: Progress) -> dict[str, Status]:
    return {each.name: each.status for each in found.nodes}


def delivered(world: Simulation, *services: str) -> None:
    """Deliver all messages to these services."""
    while found := [parcel for parcel in world.wire.waiting if parcel.service in services]:
        world.deliver(found[0])


def test_a_join_shows_what_it_waits_for(tmp_path: Path) -> None:
    with world_of(TRIP, tmp_path) as world:
        started(world, TRIP)
        delivered(world, "hotel", "flight", "payment")

        found = followed(world)

    waiting = node(found, "take_payment")
    assert (waiting.status, waiting.waits_for) == (Status.WAITING, "CarBooked (car)")
    assert "take_payment (payment) waits for CarBooked (car), since FlightBooked at " in found.summary


def test_a_branch_that_has_not_begun_is_to_come(tmp_path: Path) -> None:
    with world_of(TRIP, tmp_path) as world:
        started(world, TRIP)
        delivered(world, "hotel", "flight", "payment")

        found = followed(world)

    late = node(found, "book_car")
    assert (late.status, late.event_in.type) == (Status.REMAINING, TRIP.saga.starts_with.__name__)
    assert late in found.remaining
    assert f"Waiting for car to begin book_car, since {late.event_in.type} at " in found.summary


def test_each_finished_branch_is_named_until_joined(tmp_path: Path) -> None:
    with world_of(TRIP, tmp_path) as world:
        started(world, TRIP)
        delivered(world, "hotel", "flight", "payment")
        before = followed(world)
        delivered(world, "car")

        after = followed(world)

    assert "Room booked at " in before.summary
    assert "Flight booked at " in before.summary
    assert "Car booked at " in after.summary


def test_a_branch_behind_a_refusal_is_to_come(tmp_path: Path) -> None:
    script = Script()
    script.plan("book_room", "refuse")
    with world_of(TRIP, tmp_path, script) as world:
        started(world, TRIP)
        delivered(world, "hotel")

        found = followed(world)

    assert statuses(found)["book_car"] is Status.REMAINING
    assert statuses(found)["take_payment"] is Status.SKIPPED


def test_a_branch_outlives_its_joins_deadline(tmp_path: Path) -> None:
    with world_of(TRIP, tmp_path) as world:
        started(world, TRIP)
        delivered(world, "hotel", "flight", "payment")
        world.advance(TRIP.patience)
        world.advance(timedelta(minutes=1))
        delivered(world, "payment")

        found = followed(world)

    assert statuses(found)["take_payment"] is Status.REFUSED
    assert statuses(found)["book_car"] is Status.REMAINING


def test_parallel_steps_have_no_order(tmp_path: Path) -> None:
    with world_of(TRIP, tmp_path) as world:
        started(world, TRIP)
        delivered(world, "flight")

        found = followed(world)

    # The hotel comes first in the choreography, and has not begun: it is not forgotten, only slower.
    assert statuses(found)["book_flight"] is Status.DONE
    assert statuses(found)["book_room"] is not Status.UNKNOWN
    assert statuses(found)["take_payment"].is_to_come


def test_a_join_that_can_never_run_is_skipped(tmp_path: Path) -> None:
    script = Script()
    script.plan("book_car", "refuse")
    with world_of(TRIP, tmp_path, script) as world:
        started(world, TRIP)
        delivered(world, "hotel", "flight", "car", "payment")

        found = followed(world)

    assert statuses(found)["take_payment"] is Status.SKIPPED
    assert statuses(found)["call_off"].is_to_come
    assert "take_payment" not in found.summary


def test_a_finished_trip_waits_for_nothing(tmp_path: Path) -> None:
    script = Script()
    script.plan("book_car", "refuse")
    with world_of(TRIP, tmp_path, script) as world:
        started(world, TRIP)
        settled(world)

        found = followed(world)

    assert found.remaining == []
    assert {name: str(status) for name, status in statuses(found).items() if status is Status.UNKNOWN} == {}
    assert statuses(found)["take_payment"] is Status.SKIPPED


def test_a_compensation_that_joins_shows_what_it_waits_for(tmp_path: Path) -> None:
    script = Script()
    script.plan("book_caterer", "refuse")
    with world_of(DIAMOND, tmp_path, script) as world:
        started(world, DIAMOND)
        delivered(world, "venue", "caterer")
        delivered(world, "venue")

        found = followed(world, DIAMOND)

    waiting = node(found, "release_venue")
    assert (waiting.status, waiting.waits_for) == (Status.WAITING, "SpeakerRefused or SpeakerCancelled (speaker)")
    assert statuses(found)["reserve_venue"] is Status.DONE


def test_the_choreography_shows_a_joins_slots() -> None:
    text = as_text(Choreography(TRIP.declare(Script())))

    assert "    on (RoomBooked) and (FlightBooked) and (CarBooked)" in text
    assert (
        "    on (RoomRefused, RoomCancelled) and (FlightRefused, FlightCancelled) and (CarRefused, CarCancelled)"
        in text
    )
