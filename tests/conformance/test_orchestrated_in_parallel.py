"""A coordinator asks several steps at once, and joins their replies, whichever replica takes them."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.coordinated import abort, check
from tests.conformance.world import RabbitWorld, World
from tests.eventually import eventually
from tests.example_sagas.orchestrated_travel import COORDINATOR


async def test_parallel_steps_are_joined(parallel_world: World) -> None:
    world = parallel_world

    trip = await world.request()

    await check(world, trip, "Completed")
    assert await world.effects("desk", trip) == ["ticket issued"]


@pytest.mark.parametrize(
    ("step", "hotel", "flight"),
    [
        ("book_room", [], ["flight booked", "flight cancelled"]),
        ("book_flight", ["room booked", "room 12 cancelled"], []),
        ("issue_ticket", ["room booked", "room 12 cancelled"], ["flight booked", "flight cancelled"]),
    ],
)
async def test_a_refusal_undoes_its_siblings(
    parallel_world: World, step: str, hotel: list[str], flight: list[str]
) -> None:
    world, trip = parallel_world, "trip-1"
    world.script.always(step, "refuse", trip)

    await world.request(trip)

    await check(world, trip, "Failed")
    effects = {service: await world.effects(service, trip) for service in ("hotel", "flight", "desk")}
    assert effects["desk"] == ["apologized"]
    assert effects["hotel"] in (hotel, [])
    assert effects["flight"] in (flight, [])


async def test_an_abort_gives_up_all_parallel_steps(parallel_world: World) -> None:
    world, trip = parallel_world, "trip-1"

    async def is_aborted() -> None:
        await world.runtimes[COORDINATOR].batcher.deliver(abort(trip))

        async def has_given_up() -> bool:
            return "voiding" in await world.states(COORDINATOR, trip)

        await eventually(has_given_up, what="all steps are given up")

    world.script.plan("book_room", is_aborted)

    await world.request(trip)

    await check(world, trip, "Failed")


@pytest.mark.parametrize("parallel_world", ["rabbit-sqlite", "rabbit-postgresql"], indirect=True)
async def test_two_replicas_lose_no_join(parallel_world: RabbitWorld) -> None:
    world = parallel_world
    replica = await world.app(COORDINATOR)
    await replica.start()
    trips = [f"trip-{number}" for number in range(20)]

    await asyncio.gather(*(world.request(trip) for trip in trips))
    await eventually(lambda: _have_ended(world, trips), within=60, what="all trips")
    await replica.stop()

    for trip in trips:
        await check(world, trip, "Completed")


async def _have_ended(world: World, trips: list[str]) -> bool:
    return all([await world.state(trip) for trip in trips])
