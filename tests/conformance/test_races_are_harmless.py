"""At-least-once on the wire, exactly once in effect: duplicate, late, early and concurrent events are harmless."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.conformance.world import RabbitWorld, World, message
from tests.eventually import eventually
from tests.example_sagas.travel import (
    FlightBooked,
    FlightRefused,
    RoomBooked,
    TicketRefused,
    TripRequested,
)
from toolkit.declaration.events import AbortRequested, SagaEnded


async def test_a_duplicate_event_has_one_effect(world: World) -> None:
    wire = message(TripRequested(trip_id="trip-1"), "trip-1")

    await asyncio.gather(*(world.send(wire) for _ in range(5)))
    await world.quiet()

    assert await world.effects("hotel", "trip-1") == ["room booked"]
    if world.settings.reads_first:  # otherwise a call for a duplicate is rolled back
        assert world.script.calls == {"book_room": 1, "book_flight": 1, "issue_ticket": 1}
    assert world.script.calls["book_flight"] == 1  # it is external, so its saga is read first
    assert await world.notes("hotel", "trip-1") == []


async def test_a_request_under_another_id_changes_nothing(world: World) -> None:
    wire = message(TripRequested(trip_id="trip-1"), "trip-1")

    await world.send(wire)
    await world.quiet()
    await world.send(replace(wire, message_id="another", correlation_id="something-random"))
    await world.quiet()

    assert await world.effects("hotel", "trip-1") == ["room booked"]
    assert await world.notes("hotel", "trip-1") == ["ignored"]


async def test_a_compensation_before_its_step_fences_it(world: World) -> None:
    refused = FlightRefused(trip_id="trip-1", reason="no crew")

    await world.send(message(refused, "trip-1"))
    await world.quiet()
    await world.send(message(TripRequested(trip_id="trip-1"), "trip-1"))
    await world.quiet()

    assert await world.states("hotel", "trip-1") == ["fenced"]
    assert await world.effects("hotel", "trip-1") == []
    assert await world.notes("hotel", "trip-1") == ["ended", "ignored"]
    assert await world.state("trip-1") == "Failed"


async def test_a_compensation_waits_for_an_unknown_outcome(world: World) -> None:
    called, may_answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        called.set()
        await may_answer.wait()

    world.script.plan("book_flight", slow)
    sending = asyncio.create_task(world.send(message(RoomBooked(trip_id="trip-1"), "trip-1")))
    await called.wait()
    world.script.plan("issue_ticket", "refuse")

    await world.send(message(TicketRefused(trip_id="trip-1", reason="late"), "trip-1"))
    assert await world.states("flight", "trip-1") == ["executing"]
    may_answer.set()
    await sending
    await world.quiet()

    assert await world.states("flight", "trip-1") == ["executing", "completed", "compensating", "compensated"]
    assert not world.script.booked


async def test_a_late_success_is_noted_without_effect(world: World) -> None:
    await world.send(message(TicketRefused(trip_id="trip-1", reason="early"), "trip-1"))
    await world.quiet()

    await world.send(message(RoomBooked(trip_id="trip-1"), "trip-1"))
    await world.quiet()

    assert await world.states("flight", "trip-1") == ["fenced"]
    assert (await world.notes("flight", "trip-1"))[-1] == "ignored"
    assert world.script.calls["book_flight"] == 0


async def test_a_finished_saga_is_never_rolled_back(world: World) -> None:
    trip = await world.request()
    await world.quiet()

    await world.send(message(TicketRefused(trip_id=trip, reason="stale"), trip))
    await world.send(message(FlightRefused(trip_id=trip, reason="stale"), trip))
    await world.send(message(AbortRequested(saga_type="trip", saga_id=trip, reason="stale"), trip))
    await world.quiet()

    assert await world.states("hotel", trip) == ["completed", "confirmed"]
    assert await world.states("flight", trip) == ["executing", "completed", "confirmed"]
    assert await world.state(trip) == "Completed"


@pytest.mark.parametrize("unfinished", ["book_room", "book_flight", "issue_ticket"])
async def test_an_abort_makes_the_first_unfinished_step_refuse(world: World, unfinished: str) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    before = {"book_room": None, "book_flight": "book_room", "issue_ticket": "book_flight"}[unfinished]

    async def hold() -> None:
        reached.set()
        await go_on.wait()

    if before:
        world.script.plan(before, hold)
        requesting = asyncio.create_task(world.request("trip-1"))
        await reached.wait()
    aborting = asyncio.create_task(
        world.send(message(AbortRequested(saga_type="trip", saga_id="trip-1", reason="cancelled"), "trip-1"))
    )
    service = {"book_room": "hotel", "book_flight": "flight", "issue_ticket": "desk"}[unfinished]
    await eventually(lambda: world.states(service, "trip-1"))
    go_on.set()
    await (requesting if before else world.request("trip-1"))
    await aborting
    await world.quiet()

    assert (await world.states(service, "trip-1"))[0] == "fenced"
    assert await world.state("trip-1") == "Failed"
    # A call for a fenced step is rolled back, unless the log is read first; an external step is never called.
    assert world.script.calls[unfinished] == 0 or (unfinished != "book_flight" and not world.settings.reads_first)
    assert not world.script.booked


async def test_an_abort_during_an_external_call_undoes_it(world: World) -> None:
    called, may_answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        called.set()
        await may_answer.wait()

    world.script.plan("book_flight", slow)
    requesting = asyncio.create_task(world.request("trip-1"))
    await called.wait()

    await world.send(message(AbortRequested(saga_type="trip", saga_id="trip-1", reason="cancelled"), "trip-1"))
    await eventually(lambda: world.states("desk", "trip-1"))
    may_answer.set()
    await requesting
    await world.quiet()

    assert await world.states("flight", "trip-1") == ["executing", "completed", "compensating", "compensated"]
    assert await world.effects("hotel", "trip-1") == ["room booked", "room 12 cancelled"]
    assert await world.state("trip-1") == "Failed"


async def test_a_completed_step_contradicts_its_failed_saga(world: World) -> None:
    await world.send(message(FlightBooked(trip_id="trip-1"), "trip-1"))
    world.script.plan("book_flight", "refuse")
    await world.quiet()

    await world.send(message(RoomBooked(trip_id="trip-2"), "trip-2"))
    await world.quiet()
    third = message(TripRequested(trip_id="trip-3"), "trip-3")
    world.script.plan("cancel_room", *[RuntimeError("hotel closed")] * 3)
    world.script.plan("book_flight", "refuse")
    await world.send(third)
    await world.quiet()
    await world.send(message(SagaEnded(saga_type="trip", failed=("trip-3",)), ""))
    await world.quiet()

    ended = [entry for entry in await world.log("hotel", "trip-3") if entry.to_state == "ended"]
    assert [entry.error for entry in ended] == ["still completed in a saga that ended failed"]


async def test_a_repeated_end_is_noted_once(world: World) -> None:
    world.script.plan("book_flight", "refuse")
    trip = await world.request()
    await world.quiet()

    for _ in range(3):
        await world.send(message(SagaEnded(saga_type="trip", failed=(trip,)), "", event_id=trip))
    await world.quiet()

    assert (await world.notes("hotel", trip)).count("ended") == 1


async def test_two_replicas_of_each_service_share_the_work(world: World) -> None:
    if not isinstance(world, RabbitWorld):
        return await _is_one_process(world)
    replicas = [await world.app(service.name) for service in world.services]
    await asyncio.gather(*(app.start() for app in replicas))
    trips = [f"trip-{number}" for number in range(60)]
    wires = [message(TripRequested(trip_id=trip), trip) for trip in trips]

    await asyncio.gather(*(world.send(wire) for wire in wires * 2))
    await world.quiet()

    assert [await world.state(trip) for trip in trips] == ["Completed"] * 60
    assert [await world.effects("hotel", trip) for trip in trips] == [["room booked"]] * 60
    await eventually(lambda: _all_idle(replicas))
    await asyncio.gather(*(app.stop() for app in replicas))
    return None


async def _is_one_process(world: World) -> None:
    # The embedded transport is one process by definition; there the same load comes doubled, at once.
    trips = [f"trip-{number}" for number in range(60)]

    await asyncio.gather(*(world.send(message(TripRequested(trip_id=trip), trip)) for trip in trips * 2))
    await world.quiet()

    assert [await world.effects("hotel", trip) for trip in trips] == [["room booked"]] * 60


async def _all_idle(apps: list) -> bool:
    return all(app.runtime.batcher.is_idle for app in apps)


async def _all_deferred(world: World, service: str) -> bool:
    return await world.own(service) > 0 and not await world.waiting()


async def test_copies_of_a_deferred_compensation_wait_as_one(world: World) -> None:
    called, may_answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        called.set()
        await may_answer.wait()

    world.script.plan("book_flight", slow)
    world.script.plan("issue_ticket", "refuse")
    sending = asyncio.create_task(world.send(message(RoomBooked(trip_id="trip-1"), "trip-1")))
    await called.wait()

    refused = message(TicketRefused(trip_id="trip-1", reason="late"), "trip-1")
    for _ in range(5):
        await asyncio.gather(*(world.send(refused) for _ in range(10)))
    await eventually(lambda: _all_deferred(world, "flight"), within=20, what="all copies deferred")
    waiting = await world.own("flight")
    may_answer.set()
    await sending
    await world.quiet()

    assert 1 <= waiting <= 4
    assert await world.states("flight", "trip-1") == ["executing", "completed", "compensating", "compensated"]
