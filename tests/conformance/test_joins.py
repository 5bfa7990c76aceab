"""Parallel branches and the step that joins them, on every transport: all is booked and paid, or all is undone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.conformance.operators import ADA, everything
from tests.conformance.world import RabbitWorld, World, message
from tests.eventually import eventually
from tests.example_sagas.conference import ConferencePlanned
from tests.example_sagas.parallel_trip import PATIENCE, STEPS, CarBooked, FlightBooked, HolidayWanted, RoomBooked
from tests.races import patience, races, waves
from toolkit import Event
from toolkit.declaration.events import AbortRequested
from toolkit.messaging.envelope import WireMessage
from toolkit.operations import dead_letters as dead_letter_operations
from toolkit.operations import sagas
from toolkit.persistence.dead_letters import Selection
from toolkit.protocol.invariants import violations_of
from toolkit.protocol.timeline import merge

#: A payment is refused so long after the first booking, in the tests of its deadline.
SOON = timedelta(seconds=3)


def wire(event: Event, trip: str = "trip-1", **facts: object) -> WireMessage:
    return message(event, trip, saga_type="holiday", **facts)


async def started(world: World, trip: str = "trip-1") -> str:
    await world.send(wire(HolidayWanted(trip_id=trip), trip))
    return trip


async def last(world: World, service: str, trip: str = "trip-1") -> str | None:
    states = await world.states(service, trip)
    return states[-1] if states else None


async def test_a_join_runs_once_after_all_branches(holidays: World) -> None:
    trip = await started(holidays)
    await eventually(lambda: holidays.effects("payment", trip))
    await holidays.quiet()

    assert await holidays.effects("payment", trip) == ["550 paid"]
    assert await holidays.states("payment", trip) == ["gathering", "gathering", "completed", "confirmed"]
    assert [await last(holidays, name) for name in ("hotel", "flight", "car")] == ["confirmed"] * 3


@pytest.mark.parametrize("refusing", STEPS)
async def test_a_refusal_undoes_all_branches(holidays: World, refusing: str) -> None:
    holidays.script.always(refusing, "refuse", "trip-1")
    trip = await started(holidays)
    await eventually(lambda: holidays.effects("agency", trip))
    await holidays.quiet()

    settled = {await last(holidays, name) for name in ("hotel", "flight", "car", "payment")}
    assert settled <= {"failed", "fenced", "compensated", "gathering"}
    assert await holidays.effects("agency", trip) == ["called off"]
    assert await holidays.effects("payment", trip) == []
    assert await holidays.outgoing() == 0


async def test_copies_in_another_order_change_nothing(holidays: World) -> None:
    events = [CarBooked(trip_id="trip-1", price=1), RoomBooked(trip_id="trip-1", price=2)]
    for event in (*events, *events[::-1]):
        await holidays.send(wire(event))
    await holidays.send(wire(RoomBooked(trip_id="trip-1", price=99), event_id="another"))
    await holidays.send(wire(FlightBooked(trip_id="trip-1", price=4)))
    await eventually(lambda: holidays.effects("payment", "trip-1"))
    for event in events:
        await holidays.send(wire(event))
    await holidays.quiet()

    assert await holidays.effects("payment", "trip-1") == ["7 paid"]
    assert "ignored" in await holidays.notes("payment", "trip-1")
    assert (await holidays.states("payment", "trip-1"))[:3] == ["gathering", "gathering", "completed"]


async def test_a_deadline_passes_without_any_message(holidays: World) -> None:
    occurred_at = datetime.now(UTC) - PATIENCE + SOON
    await holidays.send(wire(RoomBooked(trip_id="trip-1"), occurred_at=occurred_at))
    await holidays.send(wire(FlightBooked(trip_id="trip-1")))

    async def is_refused() -> bool:
        return await last(holidays, "payment") == "failed"

    await eventually(is_refused, within=60)
    await holidays.quiet()

    refusal = (await holidays.log("payment", "trip-1"))[2]
    assert refusal.error == "its deadline passed; waited for CarBooked (car)"
    assert await holidays.dead_letters("payment") == []
    assert await last(holidays, "car") == "fenced"  # its own event never came, and the refusal fences it


async def test_an_abort_fences_a_join_that_gathers(holidays: World) -> None:
    await holidays.send(wire(RoomBooked(trip_id="trip-1")))
    await eventually(lambda: holidays.states("payment", "trip-1"))

    await holidays.send(wire(AbortRequested(saga_type="holiday", saga_id="trip-1", reason="ill")))
    await holidays.quiet()

    assert await holidays.states("payment", "trip-1") == ["gathering", "fenced"]
    assert await last(holidays, "hotel") == "fenced"


@pytest.mark.parametrize("refusing", [None, "book_car"])
async def test_a_replay_of_a_finished_join_changes_nothing(holidays: World, refusing: str | None) -> None:
    holidays.script.always(refusing or "none", "refuse", "trip-1")
    trip = await started(holidays)
    await eventually(lambda: holidays.effects("agency" if refusing else "payment", trip))
    await holidays.quiet()
    states = await everything(holidays, trip)

    for runtime in holidays.runtimes.values():
        await sagas.replay(runtime.database, runtime.service, trip, ADA, now=datetime.now(UTC))
    await holidays.quiet()

    assert await everything(holidays, trip) == states


async def test_a_redriven_join_runs_with_all_events(holidays: World) -> None:
    holidays.script.always("book_car", "refuse", "trip-1")
    holidays.script.always("call_off", ConnectionError("the line is dead"), "trip-1")
    trip = await started(holidays)
    await eventually(lambda: holidays.dead_letters("agency"))
    await holidays.quiet()

    holidays.script.clear()
    agency = holidays.runtimes["agency"]
    await dead_letter_operations.redrive(agency.database, Selection(), ADA, queue=agency.queue, now=datetime.now(UTC))
    await eventually(lambda: holidays.effects("agency", trip))

    assert await holidays.effects("agency", trip) == ["called off"]
    assert await holidays.states("agency", trip) == ["gathering", "gathering", "completed"]


@pytest.mark.parametrize("refusing", ["book_caterer", "book_speaker", "print_programme"])
async def test_a_compensation_waits_for_both_branches(conferences: World, refusing: str) -> None:
    conferences.script.always(refusing, "refuse", "fair")
    await conferences.send(message(ConferencePlanned(conference_id="fair"), "fair", saga_type="conference"))
    await eventually(lambda: told(conferences))
    await conferences.quiet()

    assert (await conferences.effects("venue", "fair"))[0] == "venue reserved"
    assert len(await conferences.effects("venue", "fair")) == 2
    entries = await conferences.log("venue", "fair")
    moved = [(entry.step, entry.to_state) for entry in entries if entry.position]
    assert moved[-4:] == [
        ("release_venue", "gathering"),
        ("release_venue", "gathering"),
        ("reserve_venue", "compensating"),
        ("reserve_venue", "compensated"),
    ]


async def told(world: World) -> bool:
    return "all told" in await world.effects("office", "fair")


@patience(40)
@pytest.mark.parametrize("holidays", ["rabbit-sqlite", "rabbit-postgresql"], indirect=True)
async def test_replicas_run_a_join_once_in_every_round(holidays: RabbitWorld) -> None:
    async with holidays.replica("payment"):
        for trips in waves([f"trip-{number}" for number in range(races(40))]):
            for trip in trips:
                events = RoomBooked(trip_id=trip, price=1), FlightBooked(trip_id=trip, price=1), CarBooked(trip_id=trip)
                await asyncio.gather(*(holidays.send(wire(event, trip)) for event in (*events, events[2])))
            for trip in trips:
                await eventually(lambda trip=trip: holidays.effects("payment", trip), within=60)
            await holidays.quiet()
            for trip in trips:
                assert await holidays.effects("payment", trip) == ["2 paid"]
                assert (await holidays.states("payment", trip))[:3] == ["gathering", "gathering", "completed"]


@pytest.mark.parametrize("step", STEPS)
async def test_an_abort_at_each_step_is_atomic(holidays: World, step: str) -> None:
    sending: list[asyncio.Task[None]] = []

    async def abort() -> None:
        request = wire(AbortRequested(saga_type="holiday", saga_id="trip-1", reason="ill"))
        sending.append(asyncio.create_task(holidays.send(request)))

    holidays.script.plan(step, abort)
    trip = await started(holidays)
    await eventually(lambda: has_ended(holidays, trip), within=60)
    await asyncio.gather(*sending)
    await holidays.quiet()

    logs = [await holidays.log(service.name, trip) for service in holidays.services]
    assert [each.text for each in violations_of(trip, merge(logs))] == []
    paid, called_off = await holidays.effects("payment", trip), await holidays.effects("agency", trip)
    assert (paid, called_off) in ((["550 paid"], []), ([], ["called off"]))


async def has_ended(world: World, trip: str) -> bool:
    return bool(await world.effects("payment", trip) or await world.effects("agency", trip))


async def test_a_request_under_another_id_starts_no_second_trip(holidays: World) -> None:
    trip = await started(holidays)
    await eventually(lambda: holidays.effects("payment", trip))
    await holidays.send(replace(wire(HolidayWanted(trip_id=trip)), message_id="another"))
    await holidays.quiet()

    assert await holidays.effects("payment", trip) == ["550 paid"]
    assert await holidays.notes("hotel", trip) == ["ignored"]
