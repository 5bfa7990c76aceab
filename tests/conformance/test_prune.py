"""Ended sagas are pruned, and open ones never."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.conformance.operators import (
    MONTH,
    audited,
    grow_old,
    nothing_left,
    prune,
    restart,
    store_dead_letters,
    trip_with_a_dead_letter,
)
from tests.conformance.world import World, message
from tests.eventually import eventually
from tests.example_sagas.travel import TripRequested
from toolkit.messaging.envelope import WireMessage


async def test_pruning_deletes_ended_sagas_in_batches(world: World) -> None:
    ended = [await world.request() for _ in range(5)]
    await world.quiet()
    stuck = await trip_with_a_dead_letter(world)
    await grow_old(world)
    young = await world.request()
    await world.quiet()

    batches = [await prune(world, "flight", most=4)]
    while not batches[-1].is_all:
        batches.append(await prune(world, "flight", most=4))

    assert sum(batch.sagas for batch in batches) == 5
    assert len(batches) > 2
    assert [await world.log("flight", trip) for trip in ended] == [[]] * 5
    assert (await world.states("flight", stuck))[-1] == "compensating"
    assert (await world.states("flight", young))[-1] == "confirmed"


async def test_an_open_sagas_dead_letter_is_kept(world: World) -> None:
    await trip_with_a_dead_letter(world)
    await store_dead_letters(world, "flight", WireMessage(b"{broken", "hotel.RoomBooked"))
    await grow_old(world)

    pruned = await prune(world, "flight")

    assert (pruned.sagas, pruned.dead_letters) == (0, 1)
    assert [dead_letter.reason for dead_letter in await world.dead_letters("flight")] == ["retries spent"]


async def test_a_pruned_sagas_duplicate_is_not_run(world: World) -> None:
    trip = await world.request()
    await world.quiet()
    await grow_old(world)
    for service in world.runtimes:
        await prune(world, service)

    await world.send(message(TripRequested(trip_id=trip), trip, occurred_at=datetime.now(UTC) - timedelta(days=40)))
    await world.quiet()

    assert world.script.calls == {"book_room": 1, "book_flight": 1, "issue_ticket": 1}
    assert await world.log("hotel", trip) == []
    (dead_letter,) = await world.dead_letters("hotel")
    assert (dead_letter.reason, dead_letter.saga_id) == ("older than the log", trip)


async def test_an_old_event_without_pruned_saga_runs(world: World) -> None:
    await grow_old(world)
    await prune(world, "hotel")

    await world.send(message(TripRequested(trip_id="trip-1"), "trip-1", occurred_at=datetime.now(UTC) - MONTH))
    await world.quiet()

    assert await world.state("trip-1") == "Failed"
    assert "its deadline had passed" in str(await world.log("hotel", "trip-1"))


async def test_the_retention_setting_prunes_continuously(world: World) -> None:
    trip = await world.request()
    await world.quiet()
    await grow_old(world)

    await restart(world, retention=MONTH)

    await eventually(lambda: nothing_left(world, trip))
    assert await audited(world, "hotel") == []
