"""Bytes become a message without gaps, or are turned down with a reason; never a guess."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import field_validator

from tests.example_sagas.loans import (
    NOON,
    BookLent,
    BookWanted,
    CardRefused,
    Clerk,
    HandClock,
    letter,
    library,
    loan_saga,
    wire,
)
from toolkit import Event, Saga, SagaId
from toolkit.declaration.events import AbortRequested, SagaEnded
from toolkit.errors import UnreadableError, describe
from toolkit.ids import derived_id
from toolkit.messaging.decoding import Decoder, Unreadable
from toolkit.messaging.envelope import Message, WireMessage

WATCH = HandClock()


class RoomWanted(Event, owner="guest"):
    stay_id: SagaId


class RoomLocked(Event, owner="hotel", version=3):
    stay_id: SagaId


stay_saga = Saga(
    name="stay", id_field="stay_id", starts_with=RoomWanted, completes_with=RoomLocked, fails_with=RoomLocked
)


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(library(Clerk()).consumed(), [loan_saga], max_body=1000)


def plain(body: bytes = b'{"loan_id": "loan-1"}', key: str = "reader.BookWanted", **facts: Any) -> WireMessage:
    return WireMessage(body, key, **facts)


def test_what_was_wrapped_is_read_as_it_was(decoder: Decoder) -> None:
    sent = letter(
        CardRefused(loan_id="loan-1", reason="expired"), at=NOON, causation_id="the cause", attempt=4,
        deadline=NOON + timedelta(hours=1), traceparent="00-ab-cd-01",
    )  # fmt: skip

    read = decoder.read(sent.envelope.wrap(sent.body, type(sent.event)), WATCH)

    assert read == sent


def test_a_client_may_send_a_routing_key_and_a_body_alone(decoder: Decoder) -> None:
    message = decoder.read(plain(), WATCH)

    envelope = message.envelope
    assert (envelope.saga_id, envelope.saga_type, envelope.event_type) == ("loan-1", "loan", "BookWanted")
    assert envelope.event_id == derived_id("loan", "loan-1", "BookWanted")
    assert (envelope.occurred_at, envelope.attempt, envelope.deadline) == (NOON, 1, None)


def test_the_same_plain_request_is_the_same_message_and_another_one_is_not(decoder: Decoder) -> None:
    first, again = decoder.read(plain(), WATCH), decoder.read(plain(), WATCH)
    other = decoder.read(plain(b'{"loan_id": "loan-2"}'), WATCH)

    assert first.envelope.event_id == again.envelope.event_id != other.envelope.event_id


def test_the_starting_events_own_id_wins_over_the_correlation_id(decoder: Decoder) -> None:
    assert decoder.read(plain(correlation_id="a random one"), WATCH).envelope.saga_id == "loan-1"


def test_a_later_event_takes_its_saga_from_the_correlation_id(decoder: Decoder) -> None:
    body = b'{"loan_id": "loan-1", "reason": "expired"}'

    message = decoder.read(plain(body, "desk.CardRefused", correlation_id="loan-1"), WATCH)

    assert message.envelope.saga_id == "loan-1"


def test_the_type_may_be_said_beside_the_routing_key(decoder: Decoder) -> None:
    message = decoder.read(plain(type="BookWanted"), WATCH)

    assert isinstance(message.event, BookWanted)


def test_the_time_is_the_headers_then_the_timestamps_then_the_clocks(decoder: Decoder) -> None:
    an_hour_ago, long_ago = NOON - timedelta(hours=1), NOON - timedelta(days=1)

    both = decoder.read(plain(timestamp=an_hour_ago, headers={"occurred-at": long_ago.isoformat()}), WATCH)
    stamped = decoder.read(plain(timestamp=an_hour_ago), WATCH)

    assert (both.envelope.occurred_at, stamped.envelope.occurred_at) == (long_ago, an_hour_ago)


def test_a_time_without_a_zone_is_utc_and_a_time_with_one_is_that_moment(decoder: Decoder) -> None:
    naive = decoder.read(plain(headers={"deadline": "2026-05-04T12:00:00"}), WATCH)
    tokyo = decoder.read(plain(headers={"deadline": "2026-05-04T21:00:00+09:00"}), WATCH)

    assert naive.envelope.deadline == tokyo.envelope.deadline == NOON


def test_what_a_newer_producer_adds_is_ignored(decoder: Decoder) -> None:
    message = decoder.read(plain(b'{"loan_id": "loan-1", "edition": 2}', headers={"x-new": "yes"}), WATCH)

    assert message.event == BookWanted(loan_id="loan-1")


def test_control_messages_are_understood_by_everybody(decoder: Decoder) -> None:
    ended = decoder.read(wire(SagaEnded(saga_type="loan", completed=("loan-1",))), WATCH)
    abort = decoder.read(wire(AbortRequested(saga_type="loan", saga_id="loan-9", reason="enough")), WATCH)

    assert (ended.envelope.saga_id, ended.envelope.saga_type) == ("", "loan")
    assert (abort.envelope.saga_id, abort.envelope.saga_type) == ("loan-9", "loan")


def test_a_service_of_two_sagas_has_to_be_told_which_one_is_meant() -> None:
    decoder = Decoder({CardRefused, RoomLocked}, [loan_saga, stay_saga], max_body=1000)
    untold = plain(b'{"stay_id": "stay-1"}', "hotel.RoomLocked", correlation_id="stay-1")

    told = decoder.read(replace(untold, headers={"saga-type": "stay"}), WATCH)

    assert told.envelope.saga_type == "stay"
    with pytest.raises(UnreadableError, match="unknown saga: None"):
        decoder.read(untold, WATCH)


REASONS = [
    ("too large", plain(b" " * 1001), "1001 bytes, at most 1000"),
    ("unknown type", plain(key="reader.BookBurnt"), "'BookBurnt' is not an event that this service hears"),
    ("unknown type", plain(type="BookLent"), "'BookLent' is not an event"),
    ("unknown version", plain(headers={"event-version": 2}), "BookWanted came in version 2, known is 1"),
    ("broken header", plain(headers={"event-version": "two"}), "event-version is 'two', a text, not a whole number"),
    ("broken header", plain(headers={"attempt": "often"}), "attempt is 'often'"),
    ("broken header", plain(headers={"deadline": "tomorrow"}), "deadline is 'tomorrow', a text, not a time"),
    ("broken header", plain(headers={"occurred-at": "9999-12-31T23:59:59"}), "not between 1970 and 2999"),
    ("broken header", plain(headers={"deadline": "0001-01-01T00:00:00+14:00"}), "not between 1970 and 2999"),
    ("broken header", plain(timestamp=datetime(9999, 1, 1, tzinfo=UTC)), "timestamp is 9999"),
    ("broken header", plain(headers={"traceparent": "x" * 256}), "traceparent is not a printable text"),
    ("broken header", plain(message_id="one\0two"), "message id is not a printable text"),
    ("not JSON", plain(b"{"), "EOF"),
    ("not JSON", plain(b"\xff\xfe"), "Invalid JSON"),
    ("not JSON", plain(b""), "EOF"),
    ("not an object", plain(b"[1]"), "object"),
    ("schema", plain(b"{}"), "BookWanted: loan_id: Field required"),
    ("schema", plain(b'{"loan_id": "a b"}'), "loan_id: String should match pattern"),
    ("schema", plain(b'{"loan_id": "' + b"x" * 65 + b'"}'), "loan_id: String should have at most 64"),
    ("no saga id", plain(b'{"loan_id": "l", "reason": ""}', "desk.CardRefused"), "the correlation id is None"),
    ("no saga id", plain(b'{"loan_id": "l", "reason": ""}', "desk.CardRefused", correlation_id="a b"), "'a b'"),
    (
        "two saga ids",
        plain(b'{"loan_id": "l", "reason": ""}', "desk.CardRefused", correlation_id="m"),
        "the body is of the saga 'l', the correlation id is 'm'",
    ),
    (
        "unknown saga",
        plain(b'{"loan_id": "l", "reason": ""}', "desk.CardRefused", headers={"saga-type": "stay"}),
        "'stay' is not a saga that this service takes part in",
    ),
    ("schema", wire(SagaEnded.model_construct(saga_type="loan", failed=("a\0b",))), "failed.0"),
    ("schema", wire(SagaEnded.model_construct(saga_type="loan", failed=("a",) * 1001), at=NOON), "at most 1000"),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "message", "detail"), REASONS)
def test_what_cannot_be_read_says_why(reason: str, message: WireMessage, detail: str) -> None:
    decoder = Decoder(library(Clerk()).consumed(), [loan_saga], max_body=1000 if reason == "too large" else 10_000)

    unreadable = decoder.receive(message, WATCH)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.reason == reason
    assert detail in unreadable.detail
    assert replace(unreadable.wire, correlation_id=message.correlation_id) == message


@pytest.mark.parametrize(
    ("message", "saga_id"),
    [
        (plain(headers={"attempt": "often"}), "loan-1"),
        (plain(headers={"attempt": "often"}, correlation_id="a client's own"), "loan-1"),
        (plain(b'{"loan_id": "loan-1", "days": "soon"}', headers={"event-version": 2}), "loan-1"),
        (plain(b'{"loan_id": "a b"}', correlation_id="loan-1"), "loan-1"),
        (plain(b'{"loan_id": 1}'), None),
        (plain(b'["loan_id"]'), None),
        (plain(b'{"loan_id": "loan-1"'), None),
        (plain(b'{"loan_id": "loan-1"}' + b" " * 1000), "loan-1"),
        (plain(b'{"loan_id": "loan-1"}' + b" " * 17_000_000, correlation_id="loan-2"), "loan-2"),
        (plain(b'{"loan_id": "loan-1", "reason": ""}', "desk.CardRefused"), "loan-1"),
        (plain(b'{"loan_id": "loan-1"}', "desk.CardRefused", correlation_id="no id"), "loan-1"),
        (plain(b'{"loan_id": "loan-1"}', "desk.CardRefused", correlation_id="loan-2"), "loan-2"),
        (plain(b'{"loan_id": ["loan-1"]}', "desk.CardRefused", correlation_id="loan-2"), "loan-2"),
        (plain(b"{", "desk.CardRefused", correlation_id="loan-2"), "loan-2"),
        (plain(b"7", "desk.CardRefused", correlation_id="loan-2"), "loan-2"),
        (plain(b'{"loan_id": "loan-1"}', "desk.CardPrinted"), "loan-1"),
        (plain(b'{"loan_id": "loan-1"}', "desk.CardPrinted", correlation_id="loan-2"), "loan-2"),
        (plain(b'{"saga_id": "loan-1"}', "saga.AbortRequested", correlation_id="loan-2"), "loan-1"),
        (plain(b'{"loan_id": "loan-1"}', "saga.SagaEnded"), None),
    ],
)
def test_what_cannot_be_read_stands_under_the_saga_that_it_belongs_to(
    decoder: Decoder, message: WireMessage, saga_id: str | None
) -> None:
    unreadable = decoder.receive(message, WATCH)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.wire.correlation_id == saga_id


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
def test_a_time_is_read_of_whatever_type_it_comes(name: str, value: object) -> None:
    decoder = Decoder({CardRefused}, [loan_saga], max_body=1000)
    refused = plain(b'{"loan_id": "loan-1", "reason": ""}', "desk.CardRefused", correlation_id="loan-1")

    envelope = decoder.read(replace(refused, headers={name: value}), WATCH).envelope

    assert getattr(envelope, name.replace("-", "_")) == NOON


@pytest.mark.parametrize(("value", "shown"), NO_TIMES)
def test_what_is_no_time_is_named_with_its_header_and_its_type(decoder: Decoder, value: object, shown: str) -> None:
    unreadable = decoder.receive(plain(headers={"occurred-at": value}), WATCH)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.reason == "broken header"
    assert unreadable.detail.startswith("occurred-at is ")
    assert shown in unreadable.detail


@pytest.mark.parametrize("value", [1, "1", b"1", bytearray(b"1"), 1.0, Decimal("1.0"), None], ids=repr)
@pytest.mark.parametrize("name", ["event-version", "attempt", "deferred-until"])
def test_a_number_is_read_of_whatever_type_it_comes(decoder: Decoder, name: str, value: object) -> None:
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
def test_what_is_no_number_is_named_with_its_header_and_its_type(decoder: Decoder, value: object, shown: str) -> None:
    unreadable = decoder.receive(plain(headers={"attempt": value}), WATCH)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.detail == f"attempt is {shown}, not a whole number of up to 18 digits, from 0"


@pytest.mark.parametrize("value", ["7", 7, b"7", bytearray(b"7")], ids=repr)
def test_a_text_is_read_of_whatever_type_it_comes(decoder: Decoder, value: object) -> None:
    envelope = decoder.read(plain(headers={"causation-id": value, "traceparent": value}), WATCH).envelope

    assert (envelope.causation_id, envelope.traceparent) == ("7", "7")


@pytest.mark.parametrize("value", [True, 1.5, Decimal(1), NOON, [], {}], ids=repr)
@pytest.mark.parametrize("name", ["causation-id", "traceparent"])
def test_what_is_no_text_is_named_with_its_header_and_its_type(decoder: Decoder, name: str, value: object) -> None:
    unreadable = decoder.receive(plain(headers={name: value}), WATCH)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.detail.startswith(f"{name} is ")
    assert unreadable.detail.endswith(", not a text")


class ParcelSent(Event, owner="customer"):
    parcel_id: str | None


parcel_saga = Saga(
    name="parcel", id_field="parcel_id", starts_with=ParcelSent, completes_with=ParcelSent, fails_with=ParcelSent
)


@pytest.mark.parametrize("parcel_id", ['"ORD/2024/001"', '""', '"a\\u0000"', '"' + "a" * 65 + '"', "null"])
def test_a_saga_does_not_start_under_an_id_that_the_next_service_refuses(parcel_id: str) -> None:
    decoder = Decoder({ParcelSent}, [parcel_saga], max_body=1000)
    body = b'{"parcel_id": ' + parcel_id.encode() + b"}"

    unreadable = decoder.receive(plain(body, "customer.ParcelSent", correlation_id="p-1"), WATCH)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.reason == "no saga id"
    assert unreadable.detail.startswith("ParcelSent.parcel_id is ")


def test_the_ends_of_the_largest_batch_are_taken_whatever_the_limit() -> None:
    decoder = Decoder({BookWanted}, [loan_saga], max_body=100)
    ended = SagaEnded(saga_type="loan", completed=tuple(f"{each:064}" for each in range(1000)))

    message = decoder.read(wire(ended), WATCH)

    assert message.event == ended
    assert isinstance(decoder.receive(plain(b" " * 101, "saga.SagaEnded"), WATCH), Unreadable)
    assert "at most 131072" in decoder.receive(plain(b" " * 200_000, "saga.SagaEnded"), WATCH).detail


any_headers = st.dictionaries(
    st.sampled_from(["saga-type", "event-version", "causation-id", "occurred-at", "deadline", "attempt"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str) | st.lists(st.none()),
)  # fmt: skip


@given(
    body=st.binary() | st.sampled_from([b'{"loan_id": "loan-1"}', b'{"loan_id": "loan-1", "reason": "x"}']),
    key=st.sampled_from(["reader.BookWanted", "desk.CardRefused", "saga.SagaEnded", "saga.AbortRequested"]) | st.text(),
    message_id=st.none() | st.text(),
    correlation_id=st.none() | st.text(),
    sent_at=st.none() | st.datetimes(timezones=st.just(timezone(timedelta(hours=-12)))),
    headers=any_headers,
)
def test_no_message_whatever_makes_reading_fail(body, key, message_id, correlation_id, sent_at, headers) -> None:
    decoder = Decoder(library(Clerk()).consumed(), [loan_saga], max_body=1000)
    message = WireMessage(
        body, key, message_id=message_id, correlation_id=correlation_id, timestamp=sent_at, headers=headers
    )

    read = decoder.receive(message, WATCH)

    assert isinstance(read, Message | Unreadable)


def test_another_attempt_is_the_same_event_under_the_same_id() -> None:
    once = letter(BookWanted(loan_id="loan-1"), at=NOON)

    again = once.on_attempt(3)

    assert again.headers["attempt"] == 3
    assert (again.message_id, again.body, again.routing_key) == (once.envelope.event_id, once.body, "reader.BookWanted")


def test_a_header_that_says_nothing_is_left_out() -> None:
    bare = wire(BookLent(loan_id="loan-1"), at=NOON)

    assert set(bare.headers) == {"saga-type", "event-version", "occurred-at", "attempt"}


class SeatsCounted(Event, owner="usher"):
    stay_id: SagaId
    seats: tuple[int, ...] = ()


def test_of_very_many_faults_only_the_number_is_given() -> None:
    stay = Saga(
        name="stay", id_field="stay_id", starts_with=RoomWanted, completes_with=RoomLocked, fails_with=RoomLocked
    )
    decoder = Decoder([SeatsCounted], [stay], max_body=1_000_000)
    body = b'{"stay_id": "s-1", "seats": [' + b'"x",' * 5_000 + b'"x"]}'

    with pytest.raises(UnreadableError) as raised:
        decoder.read(plain(body, "usher.SeatsCounted"), WATCH)

    assert (raised.value.reason, raised.value.detail) == ("schema", "SeatsCounted: 5001 values are wrong")
    assert raised.value.__cause__.__cause__ is None  # else a traceback would describe each of them


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(1), asyncio.CancelledError()], ids=repr)
def test_a_validator_that_raises_something_else_makes_the_message_unreadable(error: BaseException) -> None:
    class ParcelWanted(Event, owner="reader"):
        loan_id: SagaId

        @field_validator("loan_id")
        @classmethod
        def fail(cls, _: str) -> str:
            raise error

    reader = Decoder([ParcelWanted], [loan_saga], max_body=1000)

    read = reader.receive(plain(key="reader.ParcelWanted"), HandClock())

    assert isinstance(read, Unreadable)
    assert (read.reason, read.detail) == ("schema", f"ParcelWanted: {describe(error)}")
