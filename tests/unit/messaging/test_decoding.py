"""Bytes become a complete message, or are rejected with a reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.example_sagas.loan_messages import message_of, wire
from tests.example_sagas.loans import NOON, BookLent, BookWanted, CardRefused, Clerk, library, loan_saga
from tests.unit.messaging.plain_messages import WATCH, plain
from toolkit import Event, Participant, Saga, SagaId
from toolkit.declaration.events import AbortRequested, SagaEnded
from toolkit.errors import UnreadableError
from toolkit.ids import derived_id
from toolkit.messaging.decoding import Decoder, Unreadable


class RoomWanted(Event, owner="guest"):
    stay_id: SagaId


class RoomLocked(Event, owner="hotel", version=3):
    stay_id: SagaId


class RoomLit(Event, owner="house"):
    stay_id: SagaId


stay_saga = Saga(
    name="stay", id_field="stay_id", starts_with=RoomWanted, completes_with=RoomLocked, fails_with=RoomLocked
)


def test_a_wrapped_message_is_read_unchanged(decoder: Decoder) -> None:
    sent = message_of(
        CardRefused(loan_id="loan-1", reason="expired"), at=NOON, causation_id="the cause", attempt=4,
        deadline=NOON + timedelta(hours=1), traceparent="00-ab-cd-01",
    )  # fmt: skip

    read = decoder.read(sent.envelope.wrap(sent.body, type(sent.event)), WATCH)

    assert read == sent


def test_a_routing_key_and_a_body_suffice(decoder: Decoder) -> None:
    message = decoder.read(plain(), WATCH)

    envelope = message.envelope
    assert (envelope.saga_id, envelope.saga_type, envelope.event_type) == ("loan-1", "loan", "BookWanted")
    assert envelope.event_id == derived_id("loan", "loan-1", "BookWanted")
    assert (envelope.occurred_at, envelope.attempt, envelope.deadline) == (NOON, 1, None)


def test_equal_plain_requests_get_the_same_id(decoder: Decoder) -> None:
    first, again = decoder.read(plain(), WATCH), decoder.read(plain(), WATCH)
    other = decoder.read(plain(b'{"loan_id": "loan-2"}'), WATCH)

    assert first.envelope.event_id == again.envelope.event_id != other.envelope.event_id


def test_a_starting_events_own_id_takes_precedence(decoder: Decoder) -> None:
    assert decoder.read(plain(correlation_id="a random one"), WATCH).envelope.saga_id == "loan-1"


def test_a_later_event_uses_the_correlation_id(decoder: Decoder) -> None:
    body = b'{"loan_id": "loan-1", "reason": "expired"}'

    message = decoder.read(plain(body, "desk.CardRefused", correlation_id="loan-1"), WATCH)

    assert message.envelope.saga_id == "loan-1"


def test_the_type_property_may_name_the_event(decoder: Decoder) -> None:
    message = decoder.read(plain(type="BookWanted"), WATCH)

    assert isinstance(message.event, BookWanted)


def test_header_timestamp_and_clock_give_the_time(decoder: Decoder) -> None:
    an_hour_ago, long_ago = NOON - timedelta(hours=1), NOON - timedelta(days=1)

    both = decoder.read(plain(timestamp=an_hour_ago, headers={"occurred-at": long_ago.isoformat()}), WATCH)
    stamped = decoder.read(plain(timestamp=an_hour_ago), WATCH)

    assert (both.envelope.occurred_at, stamped.envelope.occurred_at) == (long_ago, an_hour_ago)


def test_a_time_without_a_zone_is_utc(decoder: Decoder) -> None:
    naive = decoder.read(plain(headers={"deadline": "2026-05-04T12:00:00"}), WATCH)
    tokyo = decoder.read(plain(headers={"deadline": "2026-05-04T21:00:00+09:00"}), WATCH)

    assert naive.envelope.deadline == tokyo.envelope.deadline == NOON


def test_a_newer_producers_fields_are_ignored(decoder: Decoder) -> None:
    message = decoder.read(plain(b'{"loan_id": "loan-1", "edition": 2}', headers={"x-new": "yes"}), WATCH)

    assert message.event == BookWanted(loan_id="loan-1")


def test_each_service_reads_control_messages(decoder: Decoder) -> None:
    ended = decoder.read(wire(SagaEnded(saga_type="loan", completed=("loan-1",))), WATCH)
    abort = decoder.read(wire(AbortRequested(saga_type="loan", saga_id="loan-9", reason="enough")), WATCH)

    assert (ended.envelope.saga_id, ended.envelope.saga_type) == ("", "loan")
    assert (abort.envelope.saga_id, abort.envelope.saga_type) == ("loan-9", "loan")


def test_two_sagas_in_one_service_need_types() -> None:
    decoder = Decoder({CardRefused, RoomLocked}, [loan_saga, stay_saga], max_body=1000)
    bare = plain(b'{"stay_id": "stay-1"}', "hotel.RoomLocked", correlation_id="stay-1")

    named = decoder.read(replace(bare, headers={"saga-type": "stay"}), WATCH)

    assert named.envelope.saga_type == "stay"
    with pytest.raises(UnreadableError, match="unknown saga: None"):
        decoder.read(bare, WATCH)


def test_event_consumed_in_one_saga_needs_no_type() -> None:
    door = Participant("door", saga=stay_saga)

    @door.step()
    async def lock_room(event: RoomWanted) -> RoomLocked:
        return RoomLocked(stay_id=event.stay_id)

    @door.step()
    async def light_room(event: RoomLocked) -> RoomLit:
        return RoomLit(stay_id=event.stay_id)

    branch = library(Clerk())
    service = replace(branch, participants=[*branch.participants, door])
    decoder = Decoder(service.consumed(), service.sagas, saga_types=service.saga_types(), max_body=1000)

    message = decoder.read(plain(b'{"stay_id": "stay-1"}', "hotel.RoomLocked", correlation_id="stay-1"), WATCH)

    assert message.envelope.saga_type == "stay"


def test_the_largest_saga_ended_exceeds_no_limit() -> None:
    decoder = Decoder({BookWanted}, [loan_saga], max_body=100)
    ended = SagaEnded(saga_type="loan", completed=tuple(f"{each:064}" for each in range(1000)))

    message = decoder.read(wire(ended), WATCH)

    assert message.event == ended
    assert isinstance(decoder.receive(plain(b" " * 101, "saga.SagaEnded"), WATCH), Unreadable)
    assert "at most 131072" in decoder.receive(plain(b" " * 200_000, "saga.SagaEnded"), WATCH).detail


def test_another_attempt_keeps_the_events_id() -> None:
    once = message_of(BookWanted(loan_id="loan-1"), at=NOON)

    again = once.on_attempt(3)

    assert again.headers["attempt"] == 3
    assert (again.message_id, again.body, again.routing_key) == (once.envelope.event_id, once.body, "reader.BookWanted")


def test_an_empty_header_is_left_out() -> None:
    bare = wire(BookLent(loan_id="loan-1"), at=NOON)

    assert set(bare.headers) == {"saga-type", "event-version", "occurred-at"}
