"""The frames of a message are byte for byte those that pamqp encodes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from aiormq.abc import ChannelFrame
from hypothesis import given
from hypothesis import strategies as some
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from toolkit.messaging.envelope import WireMessage
from toolkit.transport.rabbitmq.message_frames import frames_of
from toolkit.transport.rabbitmq.messages import properties_of

CHANNEL, MAX = 7, 131_064
MESSAGE = WireMessage(
    body=b'{"order_id": "order-1"}',
    routing_key="order.OrderCreated",
    message_id="event-1",
    correlation_id="order-1",
    type="OrderCreated",
    timestamp=datetime(2026, 11, 27, 12, 30, 15, 999_999, tzinfo=UTC),
    headers={"saga-type": "order", "event-version": 1, "attempt": 1},
)

#: Naive, as hypothesis wants them.
EARLIEST, LATEST = datetime(1971, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001

texts = some.text(max_size=60)
optional_texts = some.none() | texts
values = (
    some.text(max_size=2_000)
    | some.integers(-(2**63), 2**63 - 1)
    | some.none()
    | some.booleans()
    | some.floats(width=32)
    | some.lists(some.integers(0, 9) | texts, max_size=3)
    | some.datetimes(EARLIEST, LATEST, timezones=some.just(UTC))
)
messages = some.builds(
    WireMessage,
    body=some.binary(max_size=300),
    routing_key=some.text(max_size=60),
    message_id=some.text(min_size=1, max_size=60),
    correlation_id=optional_texts,
    type=optional_texts,
    timestamp=some.none() | some.datetimes(EARLIEST, LATEST),
    headers=some.dictionaries(some.text(max_size=200), values, max_size=12),
)


def encoded(message: WireMessage, *, exchange: str = "saga", login: str = "payment", most: int = MAX) -> bytes:
    return frames_of(
        message,
        message_id=message.message_id or "",
        exchange=exchange,
        login=login,
        channel=CHANNEL,
        max_content_size=most,
    )


def by_pamqp(message: WireMessage, *, exchange: str = "saga", login: str = "payment", most: int = MAX) -> bytes:
    body = message.body
    frames: list[Any] = [
        Basic.Publish(exchange=exchange, routing_key=message.routing_key, mandatory=True),
        ContentHeader(properties=properties_of(message, login=login), body_size=len(body)),
        *(ContentBody(body[start : start + most]) for start in range(0, len(body), most)),
    ]
    return ChannelFrame.marshall(CHANNEL, frames).payload


@given(message=messages)
def test_any_message_is_encoded_as_by_pamqp(message: WireMessage) -> None:
    assert encoded(message) == by_pamqp(message)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sent-by": ""},
        {"kunde": "Grün & Söhne 🙂", "ключ": "значение"},
        {"long": "x" * 100_000},
        {"n" * 200: 1, "ü" * 100: 2},
        {"small": -128, "short": 32_767, "unsigned": 65_535, "int": -(2**31), "long": 2**32 - 1, "big": -(2**63)},
        {"none": None, "yes": True, "half": 0.5, "money": Decimal("12.34"), "bytes": bytearray(b"\x00\xff")},
        {"at": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30)))},
        {"x-death": [{"queue": "saga.payment", "count": 3, "routing-keys": ["a", "b"]}]},
    ],
)
def test_headers_of_each_type_are_as_pamqps(headers: dict[str, Any]) -> None:
    message = replace(MESSAGE, headers=headers)

    assert encoded(message) == by_pamqp(message)


@pytest.mark.parametrize("size", [0, 1, 999, 1_000, 1_001, 10_000])
def test_a_long_body_is_split_into_frames(size: int) -> None:
    message = replace(MESSAGE, body=b"x" * size)

    assert encoded(message, most=1_000) == by_pamqp(message, most=1_000)


@pytest.mark.parametrize(
    "facts",
    [
        {"correlation_id": None, "type": None, "timestamp": None},
        {"correlation_id": "", "type": ""},
        {"timestamp": datetime(2026, 11, 27, 12)},  # noqa: DTZ001 -- a naive time counts as UTC
        {"message_id": "ü" * 127, "correlation_id": "x" * 255},
        {"routing_key": ""},
    ],
)
def test_missing_and_longest_properties_are_as_pamqps(facts: dict[str, Any]) -> None:
    message = replace(MESSAGE, **facts)

    assert encoded(message, exchange="", login="") == by_pamqp(message, exchange="", login="")


@pytest.mark.parametrize(
    "facts",
    [
        {"correlation_id": "x" * 256},
        {"type": "ü" * 128},
        {"routing_key": "x" * 256},
        {"headers": {"object": object()}},
        {"headers": {"big": 2**64}},
    ],
)
def test_a_message_that_amqp_forbids_raises(facts: dict[str, Any]) -> None:
    message = replace(MESSAGE, **facts)

    with pytest.raises(TypeError) as ours:
        encoded(message)
    with pytest.raises(TypeError):
        by_pamqp(message)

    assert str(ours.value)


def test_headers_larger_than_a_frame_raise() -> None:
    message = replace(MESSAGE, headers={"x": "x" * MAX})

    with pytest.raises(ValueError, match=f"at most {MAX} fit into a frame"):
        encoded(message)
