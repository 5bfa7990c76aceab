"""A header of any AMQP type is read, or its message alone is a dead letter."""

from __future__ import annotations

import asyncio
import json
import struct
from datetime import UTC, datetime, timedelta

import pika
import pytest

from tests.conformance.world import RabbitWorld
from toolkit import Settings


class Raw(bytes):
    """A value of an AMQP table in its encoding on the wire, its type first."""


#: Later than now, since the steps' minute counts from it and the module may have been imported long ago.
NOW = datetime.now(UTC) + timedelta(hours=1)


ISO = NOW.isoformat().encode()


#: Values of a header `occurred-at` that are times.
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


#: Values that are not.
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


#: Properties that no service reads, and that make no message fail.
UNREAD = {
    "priority": {"priority": 255},
    "expiration": {"expiration": "60000"},
    "content type": {"content_type": "text/\u00e9"},
    "delivery mode": {"delivery_mode": 1},
    "reply to": {"reply_to": "nowhere"},
    "user's own header": {"headers": {"x": Raw(b"T" + struct.pack(">Q", 2**63 - 1))}},
}


@pytest.mark.parametrize("world", ["rabbit-sqlite"], indirect=True)
async def test_each_header_type_costs_at_most_one_message(world: RabbitWorld, monkeypatch: pytest.MonkeyPatch) -> None:
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
    dead_letters = {each.saga_id: each for each in await world.dead_letters("hotel")}
    assert {trip: dead_letters[trip].reason for trip in dead_letters} == dict.fromkeys(unread, "broken header")
    details = [each.error for each in dead_letters.values()]
    assert [each for each in details if not each.startswith(("occurred-at is ", "the headers can't be decoded"))] == []


def _send_by_pika(settings: Settings, messages: dict[str, dict]) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(settings.broker_url))
    channel = connection.channel()
    channel.confirm_delivery()
    for trip, properties in messages.items():
        body, key = json.dumps({"trip_id": trip}).encode(), "agency.TripRequested"
        channel.basic_publish(settings.exchange, key, body, pika.BasicProperties(**properties), mandatory=True)
    connection.close()
