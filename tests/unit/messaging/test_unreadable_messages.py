"""A message that can't be read is rejected with its reason, under its saga's id."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import field_validator

from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loans import NOON, Clerk, library, loan_saga
from tests.unit.messaging.plain_messages import WATCH, plain
from toolkit import Event, Saga, SagaId
from toolkit.declaration.events import SagaEnded
from toolkit.errors import UnreadableError, describe
from toolkit.messaging.decoding import Decoder, Unreadable
from toolkit.messaging.envelope import Message, WireMessage
from toolkit.testing import ManualClock

REASONS = [
    ("too large", plain(b" " * 1001), "1001 bytes, at most 1000"),
    ("unknown type", plain(key="reader.BookBurnt"), "'BookBurnt' is not an event that this service consumes"),
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
def test_an_unreadable_message_is_rejected_with_its_reason(reason: str, message: WireMessage, detail: str) -> None:
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
def test_an_unreadable_message_gets_its_sagas_id(decoder: Decoder, message: WireMessage, saga_id: str | None) -> None:
    unreadable = decoder.receive(message, WATCH)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.wire.correlation_id == saga_id


class ParcelSent(Event, owner="customer"):
    parcel_id: str | None


parcel_saga = Saga(
    name="parcel", id_field="parcel_id", starts_with=ParcelSent, completes_with=ParcelSent, fails_with=ParcelSent
)


@pytest.mark.parametrize("parcel_id", ['"ORD/2024/001"', '""', '"a\\u0000"', '"' + "a" * 65 + '"', "null"])
def test_no_saga_starts_with_an_invalid_id(parcel_id: str) -> None:
    decoder = Decoder({ParcelSent}, [parcel_saga], max_body=1000)
    body = b'{"parcel_id": ' + parcel_id.encode() + b"}"

    unreadable = decoder.receive(plain(body, "customer.ParcelSent", correlation_id="p-1"), WATCH)

    assert isinstance(unreadable, Unreadable)
    assert unreadable.reason == "no saga id"
    assert unreadable.detail.startswith("ParcelSent.parcel_id is ")


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
def test_any_message_is_read_or_rejected(body, key, message_id, correlation_id, sent_at, headers) -> None:
    decoder = Decoder(library(Clerk()).consumed(), [loan_saga], max_body=1000)
    message = WireMessage(
        body, key, message_id=message_id, correlation_id=correlation_id, timestamp=sent_at, headers=headers
    )

    read = decoder.receive(message, WATCH)

    assert isinstance(read, Message | Unreadable)


class SeatsCounted(Event, owner="usher"):
    stay_id: SagaId
    seats: tuple[int, ...] = ()


def test_very_many_faults_are_only_counted() -> None:
    stay = Saga(
        name="stay", id_field="stay_id", starts_with=SeatsCounted, completes_with=SeatsCounted, fails_with=SeatsCounted
    )
    decoder = Decoder([SeatsCounted], [stay], max_body=1_000_000)
    body = b'{"stay_id": "s-1", "seats": [' + b'"x",' * 5_000 + b'"x"]}'

    with pytest.raises(UnreadableError) as raised:
        decoder.read(plain(body, "usher.SeatsCounted"), WATCH)

    assert (raised.value.reason, raised.value.detail) == ("schema", "SeatsCounted: 5001 values are wrong")
    assert raised.value.__cause__.__cause__ is None  # else a traceback would describe each of them


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(1), asyncio.CancelledError()], ids=repr)
def test_a_raising_validator_makes_the_message_unreadable(error: BaseException) -> None:
    class ParcelWanted(Event, owner="reader"):
        loan_id: SagaId

        @field_validator("loan_id")
        @classmethod
        def fail(cls, _: str) -> str:
            raise error

    reader = Decoder([ParcelWanted], [loan_saga], max_body=1000)

    read = reader.receive(plain(key="reader.ParcelWanted"), ManualClock(NOON))

    assert isinstance(read, Unreadable)
    assert (read.reason, read.detail) == ("schema", f"ParcelWanted: {describe(error)}")
