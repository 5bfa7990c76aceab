"""Poison: an unreadable message is kept with its reason, and delays no other."""

from __future__ import annotations

import asyncio
import json
import statistics
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.conformance.world import World
from tests.eventually import eventually
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage

#: Enough for a 99th percentile.
_NEIGHBOURS = 120


#: A percentile below that many seconds measures the machine, not the toolkit.
_A_BLINK = 0.1


def wire(body: bytes, **facts: object) -> WireMessage:
    return replace(WireMessage(body, "agency.TripRequested"), **facts)


POISON = {
    "not JSON": wire(b"{broken"),
    "not an object": wire(b"[1, 2]"),
    "unknown type": wire(b"{}", type="TripImagined"),
    "unknown version": wire(b'{"trip_id": "t"}', headers={"event-version": 7}),
    "schema": wire(b'{"passenger": "Ada"}'),
    "no saga id": wire(b'{"trip_id": "t"}', routing_key="hotel.RoomBooked", correlation_id="no spaces"),
    "unknown saga": wire(b'{"trip_id": "t"}', routing_key="hotel.RoomBooked", headers={"saga-type": "other"}),
    "broken header": wire(b'{"trip_id": "t"}', headers={"deadline": "tomorrow"}),
    "too large": wire(json.dumps({"trip_id": "t", "passenger": "x" * 300_000}).encode()),
}


@pytest.mark.parametrize("reason", POISON)
async def test_an_unreadable_message_is_kept_with_its_reason(world: World, reason: str) -> None:
    poison = POISON[reason]
    service = "flight" if "RoomBooked" in poison.routing_key else "hotel"

    await world.send(poison)
    trip = await world.request()
    await world.quiet()

    dead_letters = await world.dead_letters(service)
    assert [each.reason for each in dead_letters] == [reason]
    assert dead_letters[0].body == poison.body.decode()
    sender = {name: value for name, value in dead_letters[0].headers.items() if name == "sent-by"}
    assert dead_letters[0].headers == {**poison.headers, **sender}
    assert await world.state(trip) == "Completed"


@pytest.mark.parametrize("world", ["rabbit-postgresql"], indirect=True)
async def test_poison_does_not_slow_other_sagas_down(
    world: World,
) -> None:
    kinds = ["not JSON", "not an object", "unknown type", "unknown version", "schema", "no saga id", "too large"]
    poison = [POISON[kind] for kind in kinds]
    before = await seconds_to_the_end(world, _NEIGHBOURS, poison=[])

    doomed = await a_trip_whose_last_step_always_raises(world)
    beside = await seconds_to_the_end(world, _NEIGHBOURS, poison=poison)
    after = await seconds_to_the_end(world, _NEIGHBOURS, poison=[])

    dead_letters = [each for service in world.runtimes for each in await world.dead_letters(service)]
    assert sorted(each.reason for each in dead_letters) == sorted([*kinds, "retries spent"])
    assert await world.state(doomed) is None
    without = max(percentile_99(before), percentile_99(after), _A_BLINK)
    assert percentile_99(beside) <= 2 * without


async def a_trip_whose_last_step_always_raises(world: World) -> str:
    trip = "doomed"
    world.script.always("book_room", "refuse", trip)
    world.script.always("apologize", RuntimeError("no words"), trip)
    await world.request(trip)

    async def is_compensating() -> bool:
        return world.script.calls["apologize"] > 0

    await eventually(is_compensating, what="the compensation path")
    return trip


async def seconds_to_the_end(world: World, count: int, *, poison: list[WireMessage]) -> list[float]:
    """Send trips at a steady rate, with poison among them, and return each trip's duration."""
    sent: dict[str, datetime] = {}
    amid = {index * count // len(poison): wire for index, wire in enumerate(poison)}
    for number in range(count):
        if number in amid:
            await world.send(amid[number])
        trip = f"trip-{new_id()[-12:]}"
        sent[trip] = datetime.now(UTC)
        await world.request(trip)
        await asyncio.sleep(0.02)  # the rate
    await world.quiet()
    ended = {entry.saga_id: entry.at for entry in await world.log("desk") if entry.to_state == "completed"}
    return [(ended[trip] - at).total_seconds() for trip, at in sent.items()]


def percentile_99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]


async def test_binary_bodies_and_nul_names_are_kept(world: World) -> None:
    await world.send(wire(b"\xff\x00\xfe", message_id="one\0two"))
    await world.quiet()

    dead_letter = (await world.dead_letters("hotel"))[0]
    assert dead_letter.reason == "not JSON"
    assert dead_letter.body == "\\xff\x00\\xfe"


async def test_a_routing_key_and_a_body_start_sagas(world: World) -> None:
    await world.send(WireMessage(b'{"trip_id": "trip-7", "news": "a field of a newer client"}', "agency.TripRequested"))
    await world.quiet()

    assert await world.state("trip-7") == "Completed"
