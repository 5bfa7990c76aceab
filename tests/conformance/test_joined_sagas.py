"""Sagas with joins, refused at every step and aborted at every moment: all is done, or all is undone, and once."""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path

import pytest

from tests.conformance.joined_logs import expected_logs
from tests.conformance.joined_worlds import (
    ANSWERED,
    ARRIVALS,
    SAGAS,
    abort,
    assert_all_or_nothing,
    effects,
    logs,
    settled,
    started,
    states,
    world_of,
)
from tests.example_sagas.travel import Script
from toolkit.testing import assert_sound

CASES = [(name, step) for name, joined in SAGAS.items() for step in (None, *joined.steps)]


@pytest.mark.parametrize(("name", "refusing"), CASES)
def test_a_refusal_at_any_step_undoes_all(name: str, refusing: str | None, tmp_path: Path) -> None:
    joined, script = SAGAS[name], Script()
    script.plan(refusing or "none", "refuse")

    with world_of(joined, tmp_path, script) as world:
        started(world, joined)
        settled(world)

        is_well = assert_all_or_nothing(world, joined)

        assert is_well == (refusing is None)
        assert script.calls[joined.last] == (refusing in (None, joined.last))
        assert logs(world) == expected_logs(name, refusing)


@pytest.mark.parametrize("arrival", ARRIVALS)
@pytest.mark.parametrize("name", SAGAS | ANSWERED)
def test_an_abort_at_any_moment_is_atomic(name: str, arrival: str, tmp_path: Path) -> None:
    joined, ends = (SAGAS | ANSWERED)[name], []

    for moment in count():
        with world_of(joined, tmp_path / str(moment)) as world:
            started(world, joined)
            is_reached = []

            def at(now: int, moment: int = moment, world=world, is_reached=is_reached) -> bool:
                if now == moment:
                    is_reached.append(now)
                    abort(world, joined, ARRIVALS[arrival])
                return False

            settled(world, at=at)
            ends.append(assert_all_or_nothing(world, joined))
        if not is_reached:
            break

    # The first abort comes before the saga has begun, the last one after its end.
    assert ends[0] is False
    assert ends[-1] is True


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", SAGAS)
def test_reordered_and_doubled_messages_change_nothing(name: str, seed: int, tmp_path: Path) -> None:
    joined, script, chance = SAGAS[name], Script(), random.Random(seed)
    refusing = chance.choice([None, *joined.steps])
    script.always(refusing or "none", "refuse", "joined-1")

    with world_of(joined, tmp_path, script) as world:
        started(world, joined)

        def at(_: int) -> bool:
            if chance.random() < 0.4 and world.wire.seen:
                world.wire.waiting.append(chance.choice(world.wire.seen)) if chance.random() < 0.5 else None
            return False

        settled(
            world,
            pick=lambda waiting: chance.choice(list(dict.fromkeys(waiting))),
            at=lambda now: at(now) if now < 60 else False,
        )

        assert assert_all_or_nothing(world, joined) == (refusing is None)
        assert states(world, joined.last).count("completed") == (refusing is None)


@pytest.mark.parametrize("refusing", [None, "last"])
@pytest.mark.parametrize("name", ["external trip", "external diamond"])
def test_a_crash_at_any_moment_loses_no_join(name: str, refusing: str | None, tmp_path: Path) -> None:
    joined = SAGAS[name]

    for moment in count():
        script, crashed = Script(), []
        script.always(joined.last if refusing else "none", "refuse", "joined-1")
        with world_of(joined, tmp_path / str(moment), script) as world:
            started(world, joined)

            def at(now: int, moment: int = moment, world=world, crashed=crashed) -> bool:
                if now == moment:
                    crashed.append(now)
                    for service in list(world.processes):
                        world.crash(service)
                return False

            settled(world, at=at)
            assert assert_all_or_nothing(world, joined) == (refusing is None)
        if not crashed:
            break


@pytest.mark.parametrize("name", SAGAS)
def test_a_lost_acknowledgement_changes_nothing(name: str, tmp_path: Path) -> None:
    joined = SAGAS[name]

    with world_of(joined, tmp_path) as world:
        started(world, joined)
        seen: set[int] = set()
        while world.wire.waiting:
            parcel = world.wire.waiting[0]
            world.deliver(parcel, acknowledge=id(parcel) in seen)
            seen.add(id(parcel))
        settled(world)

        assert assert_all_or_nothing(world, joined) is True
        assert logs(world) == expected_logs(name, None)


@pytest.mark.parametrize("name", SAGAS)
def test_every_interleaving_of_these_sagas_is_sound(name: str) -> None:
    assert_sound(SAGAS[name].declare(Script()))


def test_a_join_runs_once_with_all_events(tmp_path: Path) -> None:
    joined, script = SAGAS["trip"], Script()

    with world_of(joined, tmp_path, script) as world:
        started(world, joined)
        settled(world)

        assert effects(world, "payment") == ["550 paid"]
        assert states(world, "take_payment") == ["gathering", "gathering", "completed", "confirmed"]
