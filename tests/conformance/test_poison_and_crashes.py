"""What can't be read is kept with its reason; what stopped halfway goes on; neighbours never notice."""

from __future__ import annotations

import asyncio
import json
import statistics
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pika
import pytest

from tests.conformance.world import RabbitWorld, World, message
from tests.eventually import eventually
from tests.example_sagas.travel import RoomBooked
from toolkit import Settings
from toolkit.declaration.events import SagaState
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import saga_log
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import StepState

#: Enough for a 99th percentile.
_NEIGHBOURS = 120
#: Below that many seconds a percentile tells of the machine, not of the toolkit.
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
async def test_a_message_that_cannot_be_read_is_kept_whole_with_the_reason(world: World, reason: str) -> None:
    poison = POISON[reason]
    service = "flight" if "RoomBooked" in poison.routing_key else "hotel"

    await world.send(poison)
    trip = await world.request()
    await world.quiet()

    letters = await world.dead_letters(service)
    assert [letter["reason"] for letter in letters] == [reason]
    assert letters[0]["body"] == poison.body.decode()
    sender = {name: value for name, value in letters[0]["headers"].items() if name == "sent-by"}
    assert letters[0]["headers"] == {**poison.headers, **sender}
    assert await world.state(trip) == "Completed"


@pytest.mark.parametrize("world", ["rabbit-postgresql"], indirect=True)
async def test_eight_kinds_of_poison_are_eight_dead_letters_and_their_neighbours_are_as_fast_as_ever(
    world: World,
) -> None:
    kinds = ["not JSON", "not an object", "unknown type", "unknown version", "schema", "no saga id", "too large"]
    poison = [POISON[kind] for kind in kinds]
    before = await seconds_to_the_end(world, _NEIGHBOURS, poison=[])

    doomed = await a_trip_whose_last_step_always_raises(world)
    beside = await seconds_to_the_end(world, _NEIGHBOURS, poison=poison)
    after = await seconds_to_the_end(world, _NEIGHBOURS, poison=[])

    letters = [letter for service in world.runtimes for letter in await world.dead_letters(service)]
    assert sorted(letter["reason"] for letter in letters) == sorted([*kinds, "retries spent"])
    assert await world.state(doomed) is None
    without = max(percentile_99(before), percentile_99(after), _A_BLINK)
    assert percentile_99(beside) <= 2 * without


async def a_trip_whose_last_step_always_raises(world: World) -> str:
    trip = "doomed"
    world.script.always("book_room", "refuse", trip)
    world.script.always("apologize", RuntimeError("no words"), trip)
    await world.request(trip)

    async def is_on_its_way_back() -> bool:
        return world.script.calls["apologize"] > 0

    await eventually(is_on_its_way_back, what="the way back")
    return trip


async def seconds_to_the_end(world: World, count: int, *, poison: list[WireMessage]) -> list[float]:
    """Send trips at a steady rate, poison among them, and return how long each took."""
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


async def test_bytes_that_are_no_text_and_names_with_nul_are_kept_too(world: World) -> None:
    await world.send(wire(b"\xff\x00\xfe", message_id="one\0two"))
    await world.quiet()

    letter = (await world.dead_letters("hotel"))[0]
    assert letter["reason"] == "not JSON"
    assert letter["body"] == "\\xff\x00\\xfe"


async def test_any_client_can_start_a_saga_with_a_routing_key_and_a_body(world: World) -> None:
    await world.send(WireMessage(b'{"trip_id": "trip-7", "news": "a field of a newer client"}', "agency.TripRequested"))
    await world.quiet()

    assert await world.state("trip-7") == "Completed"


async def test_a_service_that_stops_in_the_middle_goes_on_after_its_restart(world: World) -> None:
    trips = [f"trip-{number}" for number in range(30)]
    sending = [asyncio.create_task(world.request(trip)) for trip in trips]
    await eventually(lambda: world.effects("hotel", "trip-0"))

    await world.stop()
    await asyncio.gather(*sending, return_exceptions=True)
    await world.start()
    await asyncio.gather(*(world.request(trip) for trip in trips))
    await world.quiet()

    assert [await world.state(trip) for trip in trips] == ["Completed"] * 30
    assert [await world.effects("hotel", trip) for trip in trips] == [["room booked"]] * 30


async def test_an_outside_call_that_a_crash_cut_off_is_made_again_under_the_same_key(world: World) -> None:
    claimed = message(RoomBooked(trip_id="trip-1"), "trip-1")
    await leave_as_a_crash_does(world, claimed)

    await world.send(claimed)
    await world.quiet()

    assert await world.states("flight", "trip-1") == ["executing", "completed", "confirmed"]
    assert world.script.booked == {"trip:trip-1:book_flight"}


async def test_a_void_that_a_crash_cut_off_is_made_again(world: World) -> None:
    claimed = message(RoomBooked(trip_id="trip-1"), "trip-1")
    await leave_as_a_crash_does(world, claimed, then=StepState.VOIDING)

    await world.send(claimed)
    await world.quiet()

    assert await world.states("flight", "trip-1") == ["executing", "voiding", "failed"]
    assert world.script.voided == {"trip:trip-1:book_flight"}
    assert world.script.calls["book_flight"] == 0


async def test_a_claim_that_comes_back_after_its_deadline_is_voided(world: World) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    claimed = message(RoomBooked(trip_id="trip-1"), "trip-1", occurred_at=long_ago)
    await leave_as_a_crash_does(world, claimed)

    await world.send(claimed)
    await world.quiet()

    assert await world.states("flight", "trip-1") == ["executing", "voiding", "failed"]
    assert world.script.calls["book_flight"] == 0


async def leave_as_a_crash_does(world: World, claimed: WireMessage, *, then: StepState | None = None) -> None:
    """Write what stands in the log when the process dies in the outside call: the claim, and no outcome."""
    states = [StepState.EXECUTING] + ([then] if then else [])
    entries = [
        Entry(
            service="flight",
            saga_id="trip-1",
            saga_type="trip",
            step="book_flight",
            position=position,
            from_state=states[position - 2] if position > 1 else None,
            to_state=state,
            saga_state=SagaState.PENDING,
            event_id=claimed.message_id,
            event_type="RoomBooked",
            error="gave up" if state is StepState.VOIDING else None,
            at=datetime.now(UTC),
        )
        for position, state in enumerate(states, start=1)
    ]
    async with world.runtimes["flight"].database.transaction() as session:
        await saga_log.append(await session.connection(), entries)


class Raw(bytes):
    """A value of an AMQP table as it is on the wire, its type first."""


#: Later than now, since the steps' minute counts from it and the module may have been read long ago.
NOW = datetime.now(UTC) + timedelta(hours=1)
ISO = NOW.isoformat().encode()

#: What may stand in a header `occurred-at`, and is a time.
TIMES = {
    "long string": Raw(b"S" + struct.pack(">I", len(ISO)) + ISO),
    "byte array": Raw(b"x" + struct.pack(">I", len(ISO)) + ISO),
    "timestamp": Raw(b"T" + struct.pack(">Q", int(NOW.timestamp()))),
    "signed 64": Raw(b"l" + struct.pack(">q", int(NOW.timestamp()))),
    "milliseconds": Raw(b"l" + struct.pack(">q", int(NOW.timestamp() * 1000))),
    "unsigned 32": Raw(b"i" + struct.pack(">I", int(NOW.timestamp()))),
    "signed 32": Raw(b"I" + struct.pack(">i", int(NOW.timestamp()))),
    "double": Raw(b"d" + struct.pack(">d", NOW.timestamp())),
    "decimal": Raw(b"D" + struct.pack(">BI", 0, int(NOW.timestamp()))),
    "void": Raw(b"V"),
}
#: And what is none.
NO_TIMES = {
    "boolean": Raw(b"t\x01"),
    "bytes that are no text": Raw(b"S" + struct.pack(">I", 2) + b"\xff\xfe"),
    "timestamp out of bounds": Raw(b"T" + struct.pack(">Q", 2**63 - 1)),
    "array": Raw(b"A" + struct.pack(">I", 2) + b"t\x01"),
    "nested array": Raw(b"".join(b"A" + struct.pack(">I", 5 * (2_000 - each)) for each in range(2_001))),
    "table": Raw(b"F" + struct.pack(">I", 4) + b"\x01at\x01"),
    "table with a key that is no text": Raw(b"F" + struct.pack(">I", 4) + b"\x01\xfft\x01"),
    "signed 8": Raw(b"b\xff"),
    "signed 16": Raw(b"s\xff\xff"),
}
#: What no service reads, and none may stumble over.
UNREAD = {
    "priority": {"priority": 255},
    "expiration": {"expiration": "60000"},
    "content type": {"content_type": "text/\u00e9"},
    "delivery mode": {"delivery_mode": 1},
    "reply to": {"reply_to": "nowhere"},
    "user's own header": {"headers": {"x": Raw(b"T" + struct.pack(">Q", 2**63 - 1))}},
}


@pytest.mark.parametrize("world", ["rabbit-sqlite"], indirect=True)
async def test_each_type_of_each_header_is_read_or_costs_one_message(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_value = pika.data.encode_value

    def encode(pieces: list[bytes], value: object) -> int:
        if not isinstance(value, Raw):
            return encode_value(pieces, value)
        pieces.append(value)
        return len(value)

    monkeypatch.setattr(pika.data, "encode_value", encode)
    read = {f"t{i}": {"headers": {"occurred-at": value}} for i, value in enumerate(TIMES.values())}
    read |= {f"p{i}": properties for i, properties in enumerate(UNREAD.values())}
    unread = {f"n{i}": {"headers": {"occurred-at": value}} for i, value in enumerate(NO_TIMES.values())}

    await asyncio.to_thread(_send_by_pika, world.settings, read | unread)
    await world.quiet()

    assert {trip: await world.state(trip) for trip in read} == dict.fromkeys(read, "Completed")
    letters = {each["saga_id"]: each for each in await world.dead_letters("hotel")}
    assert {trip: letters[trip]["reason"] for trip in letters} == dict.fromkeys(unread, "broken header")
    details = [each["error"] for each in letters.values()]
    assert [each for each in details if not each.startswith(("occurred-at is ", "the headers can't be decoded"))] == []


def _send_by_pika(settings: Settings, messages: dict[str, dict]) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(settings.broker_url))
    channel = connection.channel()
    channel.confirm_delivery()
    for trip, properties in messages.items():
        body, key = json.dumps({"trip_id": trip}).encode(), "agency.TripRequested"
        channel.basic_publish(settings.exchange, key, body, pika.BasicProperties(**properties), mandatory=True)
    connection.close()


@pytest.mark.parametrize("world", ["rabbit-sqlite", "rabbit-postgresql"], indirect=True)
async def test_a_service_that_lost_its_inbox_says_so_and_goes_on_once_restarted(world: RabbitWorld) -> None:
    hotel = next(app for app in world.apps if app.service.name == "hotel")
    next(task for task in asyncio.all_tasks() if task.get_name() == "inbox of hotel").cancel()

    async def says_so() -> bool:
        return (await hotel.readiness()).get("batcher") is False

    await eventually(says_so, what="the end of the inbox")
    trip = await world.request()
    await hotel.stop()
    again = await world.app("hotel")
    await again.start()
    world.apps[world.apps.index(hotel)], world.runtimes["hotel"] = again, again.runtime
    await world.quiet()

    assert await world.state(trip) == "Completed"
    assert "batcher" not in await again.readiness()
