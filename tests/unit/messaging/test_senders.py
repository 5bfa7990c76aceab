"""A message that its sender may not send is rejected, by its key, its login and its route."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.example_sagas.loans import BookTakenBack, BookWanted, CardRefused, Clerk, LoanRegistered, library, loan_saga
from toolkit.clock import SystemClock
from toolkit.declaration.events import AbortRequested, Event, SagaEnded, routing_key
from toolkit.errors import UnreadableError
from toolkit.messaging.decoding import Decoder, Unreadable
from toolkit.messaging.envelope import Message, WireMessage, abort_request
from toolkit.messaging.senders import Senders

CLOCK = SystemClock()
SENDERS = Senders(exchange="saga", queue="saga.library", logins={"desk": ("desk", "desk-2")})
BODY = b'{"loan_id": "loan-1", "reason": "expired", "card": "1234"}'
ENDED = b'{"saga_type": "loan", "completed": ["loan-1"]}'
ABORT = abort_request("loan", "loan-1", "why not", now=CLOCK.now()).body


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(library(Clerk()).consumed(), [loan_saga], max_body=1000, senders=SENDERS)


def card_refused(sender: str | None = "desk", *, key: str = "desk.CardRefused", **facts: Any) -> WireMessage:
    headers = {} if sender is None else {"sent-by": sender}
    known: dict[str, Any] = {"type": "CardRefused", "correlation_id": "loan-1", "exchange": "saga"}
    return WireMessage(BODY, key, headers=headers | facts.pop("headers", {}), **known | facts)


@pytest.mark.parametrize(
    ("event_type", "body", "key"),
    [
        (SagaEnded, ENDED, "saga.AbortRequested"),
        (SagaEnded, ENDED, "reader.BookWanted"),
        (AbortRequested, ABORT, "saga.SagaEnded"),
        (CardRefused, BODY, "saga.AbortRequested"),
        (CardRefused, BODY, "library.CardRefused"),
        (BookWanted, BODY, "reader.BookWanted.more"),
        (BookWanted, BODY, ""),
    ],
)
def test_an_event_under_another_key_is_rejected(
    decoder: Decoder, event_type: type[Event], body: bytes, key: str
) -> None:
    wire = WireMessage(body, key, type=event_type.__name__, correlation_id="loan-1", exchange="saga")

    rejected = decoder.receive(wire, CLOCK)

    assert isinstance(rejected, Unreadable)
    assert (rejected.reason, rejected.wire.correlation_id) == ("wrong routing key", "loan-1")
    assert repr(key) in rejected.detail
    assert f"its own is '{routing_key(event_type)}'" in rejected.detail


def test_the_key_is_checked_before_size_and_schema(decoder: Decoder) -> None:
    wire = WireMessage(b"{" + b" " * 5000, "saga.AbortRequested", type="SagaEnded")

    with pytest.raises(UnreadableError, match=r"^wrong routing key"):
        decoder.read(wire, CLOCK)


def test_an_event_keeps_its_owners_login(decoder: Decoder) -> None:
    message = decoder.read(card_refused("desk-2"), CLOCK)

    again = message.on_attempt(2)
    defer = message.deferred_to(1_800_000_000)

    assert again.headers["sent-by"] == defer.headers["sent-by"] == "desk-2"
    assert again.routing_key == defer.routing_key == "desk.CardRefused"


@pytest.mark.parametrize("sender", ["library", "", "DESK", None])
def test_an_event_of_another_login_is_rejected(decoder: Decoder, sender: str | None) -> None:
    with pytest.raises(UnreadableError) as caught:
        decoder.read(card_refused(sender), CLOCK)

    assert caught.value.reason == "wrong sender"
    assert (repr(sender) if sender else "a client that sets no user-id") in caught.value.detail
    assert "SAGA_LOGINS names desk, desk-2 for desk" in caught.value.detail


def test_an_unnamed_owners_login_is_not_checked(decoder: Decoder) -> None:
    message = decoder.read(WireMessage(BODY, "reader.BookWanted", exchange="saga", headers={"sent-by": ""}), CLOCK)

    assert isinstance(message.event, BookWanted)


def test_a_services_own_retry_keeps_its_login(decoder: Decoder) -> None:
    """A retry of a rejected message is rejected again, and of an accepted one accepted."""
    again = decoder.read(card_refused("desk", exchange="saga.library"), CLOCK)

    assert isinstance(again, Message)
    with pytest.raises(UnreadableError, match=r"^wrong sender"):
        decoder.read(card_refused("", exchange="saga.library"), CLOCK)
    with pytest.raises(UnreadableError, match=r"^wrong routing key"):
        decoder.read(card_refused("desk", exchange="saga.library", key="saga.AbortRequested"), CLOCK)


def test_a_former_releases_retry_is_accepted(decoder: Decoder) -> None:
    """It kept no login: its row was in the outbox, or it is in the queue under the queue's name."""
    message = decoder.read(card_refused(None, exchange="saga.library"), CLOCK)
    in_the_queue = WireMessage(BODY, "saga.library", type="BookWanted", exchange="", headers={"sent-by": ""})

    assert isinstance(message.event, CardRefused)
    assert isinstance(decoder.read(in_the_queue, CLOCK).event, BookWanted)
    with pytest.raises(UnreadableError, match=r"^wrong sender"):  # any client may send it through the default exchange
        decoder.read(card_refused("", exchange="", key="saga.library"), CLOCK)


@pytest.mark.parametrize(
    "wire",
    [
        card_refused(exchange="saga.desk"),  # bound to the event exchange by a login without the right to this key
        card_refused(exchange="amq.topic"),
        card_refused(headers={"x-death": [{"queue": "a queue that dead-letters to the event exchange"}]}),
        card_refused(exchange="saga", key="saga.library"),
    ],
)
def test_a_message_without_key_check_is_rejected(decoder: Decoder, wire: WireMessage) -> None:
    with pytest.raises(UnreadableError, match=r"^(forwarded|wrong routing key)"):
        decoder.read(wire, CLOCK)


def test_an_event_not_consumed_here_stays_unknown(decoder: Decoder) -> None:
    assert LoanRegistered not in library(Clerk()).consumed()
    wire = WireMessage(BODY, "desk.LoanRegistered", type="LoanRegistered", exchange="saga")

    with pytest.raises(UnreadableError, match=r"^unknown type"):
        decoder.read(wire, CLOCK)


@pytest.mark.parametrize(
    ("sender", "outcome", "is_taken"),
    [
        ("desk-2", "completed", True),
        ("library", "failed", True),
        ("library", "completed", False),
        ("desk", "failed", False),
        ("", "completed", False),
    ],
)
def test_a_saga_is_ended_by_the_events_owner(sender: str, outcome: str, is_taken: bool) -> None:
    senders = Senders(exchange="saga", logins={"desk": ("desk-2", "desk"), "library": ("library",)})
    saga = replace(loan_saga, fails_with=BookTakenBack)
    decoder = Decoder(library(Clerk()).consumed(), [saga], max_body=1000, senders=senders)
    body = SagaEnded.model_validate({"saga_type": "loan", outcome: ("loan-1",)}).model_dump_json().encode()

    read = decoder.receive(WireMessage(body, "saga.SagaEnded", headers={"sent-by": sender}, exchange="saga"), CLOCK)

    assert isinstance(read, Message) is is_taken
    assert is_taken or read.reason == "wrong sender"
