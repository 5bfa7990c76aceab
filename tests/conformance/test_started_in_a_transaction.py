"""A service without steps starts sagas in the transactions of its application, on every transport."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from tests.conformance.world import World
from tests.eventually import eventually
from tests.example_sagas.travel import TripRequested, trip_saga
from toolkit import start


async def request(world: World, trip_id: str, passenger: str = "Ada") -> None:
    """Start a trip in a transaction of the shop's application."""
    async with AsyncSession(world.runtimes["shop"].database.engine) as session, session.begin():
        await start(session, TripRequested(trip_id=trip_id, passenger=passenger), saga=trip_saga)


async def ended(world: World, trip_id: str) -> str:
    """Return how a trip ended, once it has."""

    async def state() -> str | None:
        return await world.state(trip_id)

    found = await eventually(state, what=f"the end of {trip_id}")
    assert found
    return found


async def test_a_committed_start_runs_its_saga(shop_world: World) -> None:
    await request(shop_world, "trip-1")

    assert await ended(shop_world, "trip-1") == "Completed"
    await shop_world.quiet()
    assert await shop_world.dead_letters("shop") == []


async def test_a_second_start_of_an_ended_saga_changes_nothing(shop_world: World) -> None:
    await request(shop_world, "trip-1")
    await ended(shop_world, "trip-1")
    await shop_world.quiet()
    before = await shop_world.log("hotel", "trip-1")

    await request(shop_world, "trip-1", passenger="Bob")
    await shop_world.quiet()

    assert await shop_world.log("hotel", "trip-1") == before
    assert shop_world.script.calls["book_room"] <= 2  # an optimistic batch may call it for a duplicate, and roll back


async def test_a_service_without_steps_takes_control_messages(shop_world: World) -> None:
    shop_world.script.plan("book_flight", "refuse")
    await request(shop_world, "trip-1")

    assert await ended(shop_world, "trip-1") == "Failed"
    await shop_world.quiet()
    assert await shop_world.dead_letters("shop") == []
    assert await shop_world.log("shop") == []
