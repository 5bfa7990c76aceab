"""Headers are read from every AMQP type that holds their value, and rejected otherwise."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta, timezone
from decimal import Decimal

import pytest

from tests.example_sagas.loans import (
    NOON,
    CardRefused,
    loan_saga,
)
from tests.unit.messaging.plain_messages import WATCH, plain
from toolkit.messaging.decoding import Decoder, Unreadable

SECONDS = int(NOON.timestamp())


TIMES = [
    NOON.isoformat(), NOON.isoformat().encode(), bytearray(NOON.isoformat().encode()), NOON, NOON.replace(tzinfo=None),
    SECONDS, float(SECONDS), Decimal(SECONDS), SECONDS * 1000, NOON.astimezone(timezone(timedelta(hours=-7))),
]  # fmt: skip


NO_TIMES = [
    (True, "True, a boolean"), (b"\xff", "'\ufffd', a text"), ([1], "[1], an array"), ({"a": 1}, "{'a': 1}, a table"),
    (float("nan"), "nan, a float"), (10**17, "100000000000000000, an integer"), (-1, "between 1970 and 2999"),
    (10**400, "too long to be shown, an integer"),
    ("x" * 50, "a text of 50 characters, a text"), (object, "a value of no AMQP type"),
    (Decimal("Infinity"), "Decimal('Infinity'), a decimal"),
]  # fmt: skip


@pytest.mark.parametrize("value", TIMES, ids=repr)
@pytest.mark.parametrize("name", ["occurred-at", "deadline", "started-at"])
def test_a_time_is_read_from_each_amqp_type(name: str, value: object) -> None:
    decoder = Decoder({CardRefused}, [loan_saga], max_body=1000)
    refused = plain(b'{"loan_id": "loan-1", "reason": ""}', "desk.CardRefused", correlation_id="loan-1")

    envelope = decoder.read(replace(refused, headers={name: value}), WATCH).envelope

    assert getattr(envelope, name.replace("-", "_")) == NOON


@pytest.mark.parametrize(("value", "shown"), NO_TIMES)
def test_an_invalid_time_is_reported_with_its_header(decoder: Decoder, value: object, shown: str) -> None:
    unreadable = decoder.receive(plain(headers={"occurred-at": value}), WATCH)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.reason == "broken header"
    assert unreadable.detail.startswith("occurred-at is ")
    assert shown in unreadable.detail


@pytest.mark.parametrize("value", [1, "1", b"1", bytearray(b"1"), 1.0, Decimal("1.0"), None], ids=repr)
@pytest.mark.parametrize("name", ["event-version", "attempt", "deferred-until"])
def test_a_number_is_read_from_each_amqp_type(decoder: Decoder, name: str, value: object) -> None:
    envelope = decoder.read(plain(headers={name: value}), WATCH).envelope

    assert (envelope.version, envelope.attempt, envelope.deferred_until) == (
        1,
        1,
        int(name == "deferred-until" and value is not None),
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "True, a boolean"),
        (-1, "-1, an integer"),
        (1.5, "1.5, a float"),
        (float("inf"), "inf, a float"),
        (Decimal("0.5"), "Decimal('0.5'), a decimal"),
        (10**18, "1000000000000000000, an integer"),
        ("", "'', a text"),
        ([], "[], an array"),
        ({}, "{}, a table"),
        (NOON, "too long to be shown, a timestamp"),
    ],
)
def test_an_invalid_number_is_reported_with_its_header(decoder: Decoder, value: object, shown: str) -> None:
    unreadable = decoder.receive(plain(headers={"attempt": value}), WATCH)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.detail == f"attempt is {shown}, not a whole number of up to 18 digits, from 0"


@pytest.mark.parametrize("value", ["7", 7, b"7", bytearray(b"7")], ids=repr)
def test_a_text_is_read_from_each_amqp_type(decoder: Decoder, value: object) -> None:
    envelope = decoder.read(plain(headers={"causation-id": value, "traceparent": value}), WATCH).envelope

    assert (envelope.causation_id, envelope.traceparent) == ("7", "7")


@pytest.mark.parametrize("value", [True, 1.5, Decimal(1), NOON, [], {}], ids=repr)
@pytest.mark.parametrize("name", ["causation-id", "traceparent"])
def test_an_invalid_text_is_reported_with_its_header(decoder: Decoder, name: str, value: object) -> None:
    unreadable = decoder.receive(plain(headers={name: value}), WATCH)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.detail.startswith(f"{name} is ")
    assert unreadable.detail.endswith(", not a text")
