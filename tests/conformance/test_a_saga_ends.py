"""Whatever a step returns or raises, the saga ends: all of it done, or all of it undone in reverse."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.conformance.world import World


async def test_a_saga_whose_steps_succeed_completes_everywhere(world: World) -> None:
    trip = await world.request()

    await world.quiet()

    assert await world.state(trip) == "Completed"
    assert await world.states("hotel", trip) == ["completed", "confirmed"]
    assert await world.states("flight", trip) == ["executing", "completed", "confirmed"]
    assert await world.states("desk", trip) == ["completed", "confirmed"]
    assert await world.effects("hotel", trip) == ["room booked"]
    assert await world.effects("desk", trip) == ["ticket issued"]


UNSOUND = {
    "too large": ("has 300", {"room": "x" * 300_000, "seat": "x" * 300_000, "reason": "x" * 300_000}),
    "no text": ("can't be read from its own JSON", {"room": 12, "seat": 12, "reason": 12}),
    "another saga's": ("belongs to the saga 'trip-0'", {"trip_id": "trip-0"}),
}


@pytest.mark.parametrize("kind", UNSOUND)
@pytest.mark.parametrize(
    ("step", "service", "undone"),
    [("book_room", "hotel", ["failed"]), ("book_flight", "flight", ["executing", "voiding", "failed"])],
)
async def test_an_unreadable_event_is_never_committed(
    world: World, kind: str, step: str, service: str, undone: list[str]
) -> None:
    fault, world.script.changes[step] = UNSOUND[kind]

    trip = await world.request()
    await world.quiet()

    assert await world.state(trip) == "Failed"
    assert await world.states(service, trip) == undone
    assert fault in next(each.error for each in await world.log(service, trip) if each.to_state == "failed")
    assert [await world.dead_letters(each) for each in ("hotel", "flight", "desk")] == [[], [], []]


@pytest.mark.parametrize("kind", UNSOUND)
async def test_a_compensation_with_unreadable_event_needs_a_person(world: World, kind: str) -> None:
    fault, world.script.changes["cancel_room"] = UNSOUND[kind]
    world.script.plan("book_flight", "refuse")

    trip = await world.request()
    await world.quiet()

    (dead_letter,) = await world.dead_letters("hotel")
    assert fault in dead_letter.error
    assert await world.states("hotel", trip) == ["completed"]
    assert await world.effects("hotel", trip) == ["room booked"]


@pytest.mark.parametrize(
    ("refusing", "hotel", "flight", "desk"),
    [
        ("book_room", [], [], ["apologized"]),
        ("book_flight", ["room booked", "room 12 cancelled"], [], ["apologized"]),
        (
            "issue_ticket",
            ["room booked", "room 12 cancelled"],
            ["flight booked", "flight cancelled"],
            ["apologized"],
        ),
    ],
)
async def test_a_refusal_undoes_all_completed_steps(
    world: World, refusing: str, hotel: list[str], flight: list[str], desk: list[str]
) -> None:
    world.script.plan(refusing, "refuse")

    trip = await world.request()
    await world.quiet()

    assert await world.state(trip) == "Failed"
    assert await world.effects("hotel", trip) == hotel
    assert await world.effects("flight", trip) == flight
    assert await world.effects("desk", trip) == desk
    assert not world.script.booked


async def test_compensations_run_in_strict_reverse_order(world: World) -> None:
    world.script.plan("issue_ticket", "refuse")

    trip = await world.request()
    await world.quiet()

    flight = next(entry for entry in await world.log("flight", trip) if entry.to_state == "compensated")
    room = next(entry for entry in await world.log("hotel", trip) if entry.to_state == "compensated")
    assert flight.event_type == "TicketRefused"
    assert room.event_id == flight.emitted_id


async def test_a_refusals_reason_reaches_the_end(world: World) -> None:
    world.script.plan("issue_ticket", "refuse")

    trip = await world.request()
    await world.quiet()

    ending = (await world.log("desk", trip))[1]
    assert ending.emitted_type == "TripFailed"
    assert (await world.log("desk", trip))[0].error == "passport expired"


async def test_a_transient_error_is_retried(world: World) -> None:
    world.script.plan("book_room", RuntimeError("deadlock"), RuntimeError("deadlock"))
    world.script.plan("book_flight", ConnectionError("airline away"))
    world.script.plan("issue_ticket", RuntimeError("printer jam"))

    trip = await world.request()
    await world.quiet()

    assert await world.state(trip) == "Completed"
    assert await world.effects("hotel", trip) == ["room booked"]
    assert await world.notes("hotel", trip) == ["retrying", "retrying"]
    assert next(entry for entry in await world.log("hotel", trip) if entry.position).attempt == 3
    assert await world.notes("flight", trip) == ["retrying"]


async def test_spent_retries_refuse_the_step(world: World) -> None:
    world.script.plan("issue_ticket", *[RuntimeError("printer on fire")] * 3)

    trip = await world.request()
    await world.quiet()

    assert await world.state(trip) == "Failed"
    assert await world.effects("desk", trip) == ["apologized"]
    assert "retries spent after 3 attempts: RuntimeError: printer on fire" in str(await world.log("desk", trip))


async def test_an_external_step_is_voided_before_it_refuses(world: World) -> None:
    world.script.plan("book_flight", *[ConnectionError("airline away")] * 3)

    trip = await world.request()
    await world.quiet()

    assert await world.states("flight", trip) == ["executing", "voiding", "failed"]
    assert await world.effects("flight", trip) == ["flight voided"]
    assert world.script.voided == {f"trip:{trip}:book_flight"}
    assert await world.state(trip) == "Failed"


async def test_a_failing_void_needs_a_person(world: World) -> None:
    world.script.plan("book_flight", *[ConnectionError("airline away")] * 3)
    world.script.plan("cancel_flight", *[ConnectionError("airline away")] * 3)

    trip = await world.request()
    await world.quiet()

    assert await world.states("flight", trip) == ["executing", "voiding"]
    assert [each.reason for each in await world.dead_letters("flight")] == ["retries spent"]
    assert await world.state(trip) is None
    assert await world.states("hotel", trip) == ["completed"]


async def test_a_failed_compensation_keeps_the_steps_before(world: World) -> None:
    world.script.plan("book_flight", "refuse")
    world.script.plan("cancel_room", *[RuntimeError("hotel closed")] * 3)

    trip = await world.request()
    await world.quiet()

    dead_letter = (await world.dead_letters("hotel"))[0]
    assert (dead_letter.step, dead_letter.attempts) == ("book_room", 3)
    assert "RuntimeError: hotel closed" in dead_letter.traceback
    assert (await world.notes("hotel", trip))[-1] == "dead_lettered"
    assert await world.state(trip) is None


async def test_a_failed_external_compensation_is_retried(world: World) -> None:
    world.script.plan("issue_ticket", "refuse")
    world.script.plan("cancel_flight", ConnectionError("airline away"))

    trip = await world.request()
    await world.quiet()

    assert await world.states("flight", trip) == ["executing", "completed", "compensating", "compensated"]
    assert await world.state(trip) == "Failed"


async def test_a_step_past_its_deadline_refuses(world: World) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=1)

    trip = await world.request(occurred_at=long_ago)
    await world.quiet()

    assert await world.state(trip) == "Failed"
    assert world.script.calls["book_room"] == 0


async def test_the_whole_sagas_deadline_binds_every_forward_step(world: World) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)

    trip = await world.request(deadline=soon)
    await world.quiet()
    late = await world.request(deadline=datetime.now(UTC) - timedelta(seconds=1))
    await world.quiet()

    assert await world.state(trip) == "Completed"
    assert await world.state(late) == "Failed"


async def test_an_external_call_past_its_deadline_is_voided(world: World) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    world.script.plan("book_flight", never)

    trip = await world.request(deadline=datetime.now(UTC) + timedelta(seconds=4))
    await world.quiet()

    assert await world.states("flight", trip) == ["executing", "voiding", "failed"]
    assert await world.state(trip) == "Failed"


async def test_fifty_sagas_at_once_all_end(world: World) -> None:
    trips = [f"trip-{number}" for number in range(50)]
    world.script.always("issue_ticket", "refuse", *trips[:10])

    await asyncio.gather(*(world.request(trip) for trip in trips))
    await world.quiet()

    states = [await world.state(trip) for trip in trips]
    assert states.count("Completed") == 40
    assert states.count("Failed") == 10


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(1)], ids=["CancelledError", "SystemExit"])
async def test_a_base_exception_finally_refuses_its_step(world: World, error: BaseException) -> None:
    trips = {"book_room": "trip-room", "book_flight": "trip-flight", "issue_ticket": "trip-ticket"}
    for step, trip in trips.items():
        world.script.always(step, error, trip)
        await world.request(trip)
    await world.quiet()

    neighbour = await world.request()
    await world.quiet()

    assert {await world.state(trip) for trip in trips.values()} == {"Failed"}
    assert await world.state(neighbour) == "Completed"
    assert not any(runtime.loops.ended for runtime in world.runtimes.values())
    assert len(world.script.booked) == 1
