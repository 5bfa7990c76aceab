"""A world tells a saga as given, when and then; time passes in it only where the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import aiosqlite.core
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.parcels import (
    FULL,
    Carrier,
    NotAtHome,
    ParcelCalledBack,
    ParcelOrdered,
    ParcelPacked,
    ParcelSent,
    ParcelSigned,
    Shelf,
    ShelfEmpty,
    services,
)
from tests.example_sagas.purchase_desk import Approved
from toolkit.errors import ScenarioError, SeedError, WorldError
from toolkit.testing import NOON, Outcome, SagaWorld

shelf, carrier, desk = services()


@pytest.fixture
def outside() -> Carrier:
    return Carrier()


@pytest.fixture
def world(outside: Carrier) -> Iterator[SagaWorld]:
    with SagaWorld(shelf, carrier, desk, provides={Carrier: outside}) as world:
        yield world


def test_each_step_of_a_saga_is_done(world: SagaWorld) -> None:
    world.when(ParcelOrdered(parcel_id="p-1"))

    world.then.completed().states(pack="confirmed", send="confirmed", sign="confirmed", drop=None)
    world.then.emitted(ParcelSent(parcel_id="p-1", town="Talheim"), ParcelSigned).not_emitted(NotAtHome)
    world.then.rows(Shelf, {"name": "A", "parcels": FULL - 1}).compensated()


def test_compensations_run_in_reverse_order(world: SagaWorld, outside: Carrier) -> None:
    world.when(ParcelOrdered(parcel_id="p-1", town="Hochtal"))

    world.then.failed(reason="the customer is away").compensated("send", "pack")
    world.then.rows(Shelf, {"parcels": FULL})
    outside.assert_nothing_stands()


def test_rows_that_were_given_are_there(world: SagaWorld) -> None:
    world.given(Shelf(name="A", parcels=0), Shelf(name="B", parcels=3))

    world.when(ParcelOrdered(parcel_id="p-1"))

    world.then.failed().emitted(ShelfEmpty).compensated()
    world.then.rows(Shelf, {"parcels": 3}, name="B")
    assert [each.name for each in world.rows(Shelf)] == ["A", "B"]


def test_only_events_since_the_last_given_count(world: SagaWorld) -> None:
    world.given(ParcelOrdered(parcel_id="p-1"))

    world.when(ParcelOrdered(parcel_id="p-1"))

    world.then.not_emitted(ParcelPacked).completed()


def test_retries_come_at_their_own_times(world: SagaWorld, outside: Carrier) -> None:
    outside.plan("send", Outcome.FAILS, Outcome.FAILS)

    world.when(ParcelOrdered(parcel_id="p-1"))
    world.then.states(send="executing")
    world.when.skip(timedelta(seconds=1))

    world.then.completed()
    tries = [each.at - NOON for each in world.then.entries if each.step == "send" and each.to_state == "retrying"]
    assert tries == sorted(set(tries))
    assert tries[-1] < timedelta(milliseconds=500)


def test_a_silent_system_is_given_up_at_the_timeout(world: SagaWorld, outside: Carrier) -> None:
    outside.plan("send", Outcome.NO_ANSWER_AFTER)

    world.when(ParcelOrdered(parcel_id="p-1"))
    world.when.skip(timedelta(seconds=119))
    world.then.states(send="executing")
    world.when.skip(timedelta(seconds=2))

    world.then.failed(reason="took longer").compensated("pack")
    outside.assert_nothing_stands()


def test_the_deadline_of_a_saga_counts_from_its_event(world: SagaWorld, outside: Carrier) -> None:
    outside.plan("send", Outcome.FAILS)

    world.when(ParcelOrdered(parcel_id="p-1"), deadline=timedelta(milliseconds=150))
    world.when.skip(timedelta(seconds=1))

    world.then.failed(reason="the deadline")


def test_a_world_of_one_service_plays_its_neighbours_events() -> None:
    with SagaWorld(shelf) as world:
        world.given(ParcelOrdered(parcel_id="p-1"))
        world.then.states(pack="completed")

        world.when(ParcelCalledBack(parcel_id="p-1", reason="the customer is away"))

        world.then.compensated("pack").rows(Shelf, {"parcels": FULL})


def test_played_services_emit_samples_and_refusals() -> None:
    with SagaWorld(shelf, played=[carrier, desk]) as world:
        world.when(ParcelOrdered(parcel_id="p-1"))
        world.then.completed()

        world.given.refuses("sign", NotAtHome(parcel_id="p-2", reason="on holiday"))
        world.when(ParcelOrdered(parcel_id="p-2"))

        world.then.failed(reason="on holiday").compensated("send", "pack")
        world.saga("p-1").completed()


def test_a_step_fails_as_often_as_the_test_says(world: SagaWorld) -> None:
    world.given.fails("unpack", times=2)

    world.when(ParcelOrdered(parcel_id="p-1", town="Hochtal"))
    world.then.states(pack="completed")
    world.when.skip(timedelta(seconds=1))

    world.then.failed().compensated("send", "pack")


def test_an_abort_refuses_what_has_not_begun(world: SagaWorld, outside: Carrier) -> None:
    outside.plan("send", Outcome.FAILS)

    world.when(ParcelOrdered(parcel_id="p-1"))
    world.when.abort("p-1", reason="the customer calls")
    world.when.skip(timedelta(seconds=2))

    world.then.failed(reason="the customer calls").compensated("send", "pack")


async def test_a_world_works_beside_a_running_loop(world: SagaWorld) -> None:
    turns = asyncio.create_task(asyncio.sleep(0, "the test's own loop"))

    world.when(ParcelOrdered(parcel_id="p-1"))

    world.then.completed()
    assert await turns == "the test's own loop"


def test_coroutines_and_threads_run_in_the_world(world: SagaWorld) -> None:
    async def named() -> tuple[str, str]:
        return threading.current_thread().name, await asyncio.to_thread(lambda: threading.current_thread().name)

    own, other = world.run(named())

    assert own == other
    assert own.startswith("saga-world")


def test_a_network_connection_names_the_cure(world: SagaWorld) -> None:
    with pytest.raises(ConnectionRefusedError, match=r"no network: provide a fake .*OutsideSystem"):
        world.run(asyncio.open_connection("127.0.0.1", 1))


def test_a_coroutine_that_waits_for_time_is_an_error(world: SagaWorld) -> None:
    with pytest.raises(RuntimeError, match="waits for a later time"):
        world.run(asyncio.sleep(1))


def test_unknown_things_in_a_world_are_errors(world: SagaWorld) -> None:
    with pytest.raises(WorldError, match="nothing has happened to a saga"):
        _ = world.then
    with pytest.raises(WorldError, match=r"no saga of the world has an event Approved: .*parcel"):
        world.when(Approved(purchase_id="1"))
    with pytest.raises(WorldError, match=r"no service of the world consumes desk\.ParcelSigned: .*shelf"):
        world.when(ParcelSigned(parcel_id="p-1"))
    with pytest.raises(WorldError, match="no service of the world has the table of int"):
        world.rows(int)
    with pytest.raises(ScenarioError, match=r"no step wrap: name one of .*pack"):
        world.given.refuses("wrap")
    with pytest.raises(ScenarioError, match=r"drop \(desk\) names none of its refusals: it can't refuse"):
        world.given.refuses("drop")
    with pytest.raises(ScenarioError, match=r"no step or compensation wrap: name one of .*unpack"):
        world.given.fails("wrap")
    with pytest.raises(WorldError, match=r"asyncio is no service: pass a Service, or the module `app`"):
        SagaWorld(asyncio)
    with pytest.raises(WorldError, match="no service provides a int to its steps: take one of Carrier, Count"):
        SagaWorld(shelf, carrier, provides={int: 1})


def test_a_world_that_does_not_start_leaves_nothing_behind(tmp_path: Path) -> None:
    async def fail(_: AsyncSession) -> None:
        raise ValueError("no such shelf")

    with pytest.raises(SeedError):
        SagaWorld(replace(shelf, seed=fail), directory=tmp_path)

    assert not [each for each in threading.enumerate() if each.name.startswith("saga-world")]
    assert aiosqlite.core.Thread is threading.Thread
