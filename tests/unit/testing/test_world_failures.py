"""A world detects what is wrong with a saga, and its failures print the saga's timeline and the cure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.example_sagas.parcels import FULL, Carrier, NotAtHome, ParcelOrdered, ParcelSigned, Shelf, services
from toolkit.testing import Outcome, SagaWorld
from toolkit.testing.world.expectations import Expectations

AWAY = ParcelOrdered(parcel_id="p-1", town="Hochtal")


@pytest.fixture
def world(saga_world: type[SagaWorld]) -> SagaWorld:
    return saga_world(*services())


def test_a_step_that_is_not_undone_is_detected(saga_world: type[SagaWorld]) -> None:
    world = saga_world(*services("undone"))

    world.when(AWAY)

    with pytest.raises(AssertionError, match="every saga ends: pack is left completed in a saga that ended Failed"):
        world.then.failed()


def test_a_wrong_order_of_compensations_is_detected(saga_world: type[SagaWorld]) -> None:
    world = saga_world(*services("order"))

    world.when(AWAY)

    with pytest.raises(AssertionError, match="pack was undone without waiting for send, which had followed from it"):
        world.then.failed()


def test_a_lost_update_is_detected_in_the_rows(saga_world: type[SagaWorld]) -> None:
    world = saga_world(*services("lost update"))

    world.given(ParcelOrdered(parcel_id="p-1", town="Hochtal"))
    world.when(ParcelOrdered(parcel_id="p-2"))

    with pytest.raises(AssertionError, match=r"Shelf has 1 rows, \[\{'parcels': 8\}\]; expected: \[\{'parcels': 9\}\]"):
        world.then.completed().rows(Shelf, {"parcels": FULL - 1})


def test_a_dead_letter_is_no_sound_end(world: SagaWorld) -> None:
    world.given.fails("unpack", times=99, error=ValueError("no such shelf"))

    world.when(AWAY)
    world.when.skip(timedelta(minutes=10))

    with pytest.raises(AssertionError, match=r"a dead letter is left in shelf: retries spent .*no such shelf"):
        world.then.sound()


#: Expectations that do not hold, and what the failure says.
WRONG: list[tuple[Callable[[Expectations], object], str]] = [
    (lambda then: then.completed(), "the saga is Failed, and not Completed"),
    (lambda then: then.states(pack="confirmed", send=None), "pack is compensated, and not confirmed\nsend is compens"),
    (lambda then: then.emitted(ParcelSigned), "ParcelSigned was not emitted, but ParcelPacked, ParcelSent, NotAtHome"),
    (
        lambda then: then.emitted(NotAtHome(parcel_id="p-1", reason="ill")),
        "NotAtHome(reason='ill', parcel_id='p-1') was",
    ),
    (lambda then: then.not_emitted(NotAtHome), "NotAtHome was emitted"),
    (lambda then: then.compensated("pack", "send"), "send was undone without waiting for pack"),
    (lambda then: then.compensated("send"), "undone were send, pack; expected: send\n"),
    (lambda then: then.compensated(), "undone were send, pack; expected: nothing"),
    (lambda then: then.rows(Shelf), "Shelf has 1 rows"),
    (lambda then: then.failed(reason="the road"), "no step refused for 'the road', but for ['the customer is away'"),
]


def test_each_expectation_fails_with_the_timeline(world: SagaWorld) -> None:
    world.when(AWAY)

    for expect, fault in WRONG:
        with pytest.raises(AssertionError) as failure:
            expect(world.then)
        assert str(failure.value).startswith(fault)
        assert "carrier  send → compensated on NotAtHome, emits ParcelCalledBack" in str(failure.value)


def test_the_timeline_names_what_is_to_come(saga_world: type[SagaWorld]) -> None:
    outside = Carrier()
    world = saga_world(*services(), provides={Carrier: outside})
    outside.plan("send", Outcome.FAILS)
    outside.plan("call_back", Outcome.FAILS)

    world.when(ParcelOrdered(parcel_id="p-1"))

    with pytest.raises(AssertionError) as failure:
        world.then.completed()
    text = str(failure.value)
    assert "send (retrying) on ParcelPacked: NoAnswerError" in text
    assert "to come in carrier at 01 12:00:00." in text
    assert "ParcelPacked, attempt 2; world.when.skip(datetime.timedelta(" in text
    assert "not reached of the script: call_back: fails before its effect" in text
