"""A join's deadline passes without any message: its timer makes it refuse, and the saga is undone as one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.conformance.joined_worlds import (
    SAGAS,
    assert_all_or_nothing,
    effects,
    moves,
    settled,
    started,
    states,
    timeline,
    world_of,
)
from toolkit.testing.simulation.simulation import Simulation

#: By saga: the service that is not reached, what the join then lacks, and a service whose step is undone.
MISSING = {
    "trip": ("car", "waited for CarBooked (car)", "hotel", "room for 300 cancelled"),
    "external trip": ("car", "waited for CarBooked (car)", "hotel", "room for 300 cancelled"),
    "diamond": ("speaker", "waited for SpeakerBooked (speaker)", "caterer", "caterer cancelled"),
}


def delivered_but_to(world: Simulation, service: str) -> list:
    """Deliver all messages but those to one service; return these, as they are withheld."""
    withheld: list = []
    while world.wire.waiting:
        parcel = world.wire.waiting[0]
        if parcel.service == service:
            world.wire.waiting.remove(parcel)
            withheld.append(parcel)
        else:
            world.deliver(parcel)
    return withheld


@pytest.mark.parametrize("name", MISSING)
def test_a_deadline_passes_without_any_message(name: str, tmp_path: Path) -> None:
    joined, (away, lacks, other, undone) = SAGAS[name], MISSING[name]

    with world_of(joined, tmp_path) as world:
        started(world, joined)
        withheld = delivered_but_to(world, away)
        assert states(world, joined.last) == ["gathering"] * (len(joined.steps) - 2 if "trip" in name else 1)

        world.advance(joined.patience + timedelta(minutes=2))
        withheld += delivered_but_to(world, away)
        assert states(world, joined.last)[-1] == "failed"
        assert moves(world, joined.last)[-1]["error"] == f"its deadline passed; {lacks}"

        world.wire.waiting += withheld  # the service is back, and its step's time has passed
        settled(world)
        assert assert_all_or_nothing(world, joined) is False
        assert undone in effects(world, other)


def test_no_timer_outlives_its_saga(tmp_path: Path) -> None:
    joined = SAGAS["trip"]

    with world_of(joined, tmp_path) as world:
        started(world, joined)
        world.deliver_all()

        assert world.rows("payment", "SELECT id FROM saga_outbox WHERE id LIKE 'timer:%'") == []
        settled(world)
        assert_all_or_nothing(world, joined)


def test_a_join_that_gathers_in_a_failed_saga_is_left(tmp_path: Path) -> None:
    joined = SAGAS["trip"]

    with world_of(joined, tmp_path) as world:
        started(world, joined)
        (to_car,) = [parcel for parcel in world.wire.waiting if parcel.service == "car"]
        world.wire.waiting.remove(to_car)
        world.deliver_all()
        world.advance(timedelta(minutes=2))  # the car's own step is too late now
        world.wire.waiting.append(to_car)
        settled(world)

        assert states(world, "take_payment") == ["gathering", "gathering"]
        assert assert_all_or_nothing(world, joined) is False
        assert [tuple(row) for row in world.rows("payment", "SELECT id FROM saga_outbox")] == []
        assert not [entry for entry in timeline(world) if entry.step == "take_payment" and entry.to_state == "ignored"]
