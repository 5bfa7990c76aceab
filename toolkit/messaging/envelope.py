"""What stands around an event on the wire.

A `WireMessage` is exactly what AMQP carries; a `Message` is an envelope without gaps, and a validated event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from toolkit.declaration.events import AbortRequested, EndRequested, Event, SagaEnded, routing_key
from toolkit.ids import new_id

#: The headers of the envelope, as they are spelled on the wire.
SAGA_TYPE = "saga-type"
VERSION = "event-version"
CAUSATION_ID = "causation-id"
OCCURRED_AT = "occurred-at"
DEADLINE = "deadline"
ATTEMPT = "attempt"
DEFERRED_UNTIL = "deferred-until"
TRACEPARENT = "traceparent"
STARTED_AT = "started-at"
NUDGE = "nudge"
SENT_BY = "sent-by"
HEADERS = (
    SAGA_TYPE, VERSION, CAUSATION_ID, OCCURRED_AT, DEADLINE, ATTEMPT, DEFERRED_UNTIL, TRACEPARENT, STARTED_AT,
    NUDGE, SENT_BY,
)  # fmt: skip

#: A header that is a text, and each id, has so many printable characters at most: AMQP's short strings end there.
LONGEST_TEXT = 255

#: How those begin that the broker writes on a message that it gave up.
BROKERS_OWN = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")

CONTROL_EVENTS: tuple[type[Event], ...] = (SagaEnded, AbortRequested, EndRequested)
#: Those that are about one saga, whose id is in their body.
ABOUT_ONE_SAGA = (AbortRequested, EndRequested)


@dataclass(frozen=True, slots=True)
class WireMessage:
    """A message as AMQP carries it; a foreign client may leave out all but the routing key and the body.

    `exchange` is what a broker has taken it in by; None where it came from none.
    """

    body: bytes
    routing_key: str
    message_id: str | None = None
    correlation_id: str | None = None
    type: str | None = None
    timestamp: datetime | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    exchange: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The facts about one event, apart from its body.

    - `event_id`: UUIDv7, the same for every copy of the event.
    - `causation_id`: the event that made a step emit this one; None for the event that starts a saga.
    - `occurred_at`: when it was emitted; deadlines count from here.
    - `deadline`: the whole saga's, set by whoever started it; forward steps refuse at or after it.
    - `started_at`: when the starting event was emitted, so that whoever ends the saga knows how long it took.
    - `attempt`: which attempt at handling this delivery is, counted from 1; never copied to what is emitted.
    - `deferred_until`: the second, since the epoch, to which it was last put off; 0 if it never was.
    - `nudge`: the id of the nudge by which the event is sent again, empty the first time. A service that knows the end
      of the saga answers with it.
    - `sent_by`: the login that has sent the event, as the broker verified it, empty where the client set no user-id.
      Only what a service sends to itself keeps it; None for what goes out for the first time.
    """

    event_id: str
    event_type: str
    version: int
    saga_id: str
    saga_type: str
    occurred_at: datetime
    causation_id: str | None = None
    deadline: datetime | None = None
    attempt: int = 1
    deferred_until: int = 0
    traceparent: str | None = None
    started_at: datetime | None = None
    nudge: str = ""
    sent_by: str | None = None

    @property
    def saga(self) -> tuple[str, str]:
        """Which saga it belongs to: its type and its id, since sagas of different types may have the same id."""
        return self.saga_type, self.saga_id

    def headers(self) -> dict[str, str | int]:
        """Return the AMQP headers: those facts that AMQP has no property for."""
        headers: dict[str, str | int] = {
            SAGA_TYPE: self.saga_type,
            VERSION: self.version,
            OCCURRED_AT: self.occurred_at.isoformat(),
            ATTEMPT: self.attempt,
        }
        if self.causation_id:
            headers[CAUSATION_ID] = self.causation_id
        if self.deadline:
            headers[DEADLINE] = self.deadline.isoformat()
        if self.deferred_until:
            headers[DEFERRED_UNTIL] = self.deferred_until
        if self.traceparent:
            headers[TRACEPARENT] = self.traceparent
        if self.started_at:
            headers[STARTED_AT] = self.started_at.isoformat()
        if self.nudge:
            headers[NUDGE] = self.nudge
        if self.sent_by is not None:
            headers[SENT_BY] = self.sent_by
        return headers

    def wrap(self, body: bytes, key: str) -> WireMessage:
        """Return the message as it goes out, under this routing key."""
        return WireMessage(
            body=body,
            routing_key=key,
            message_id=self.event_id,
            correlation_id=self.saga_id,
            type=self.event_type,
            timestamp=self.occurred_at,
            headers=self.headers(),
        )


def about_one_saga(
    event: AbortRequested | EndRequested,
    *,
    now: datetime,
    traceparent: str | None = None,
    started_at: datetime | None = None,
) -> Envelope:
    """Return the envelope of a control message about one saga, under an id of its own."""
    return Envelope(
        event_id=new_id(),
        event_type=type(event).__name__,
        version=type(event).__version__,
        saga_id=event.saga_id,
        saga_type=event.saga_type,
        occurred_at=now,
        traceparent=traceparent,
        started_at=started_at,
    )


def abort_request(
    saga_type: str,
    saga_id: str,
    reason: str,
    *,
    now: datetime,
    traceparent: str | None = None,
    started_at: datetime | None = None,
) -> WireMessage:
    """Return the message that asks everybody to refuse what they have not begun of this saga.

    `started_at`: when the saga began, so that a service that may have pruned it does not refuse it.
    """
    event = AbortRequested(saga_type=saga_type, saga_id=saga_id, reason=reason)
    envelope = about_one_saga(event, now=now, traceparent=traceparent, started_at=started_at)
    return envelope.wrap(event.model_dump_json().encode(), routing_key(AbortRequested))


@dataclass(frozen=True, slots=True)
class Message:
    """An event that a participant knows, with its envelope and the bytes that it came in."""

    envelope: Envelope
    event: Event
    body: bytes

    def on_attempt(self, attempt: int) -> WireMessage:
        """Return the same event as a message for this attempt."""
        return self._under(replace(self.envelope, attempt=attempt))

    def deferred_to(self, second: int) -> WireMessage:
        """Return the same event as a message that is put off to this second, since the epoch."""
        return self._under(replace(self.envelope, deferred_until=second))

    def _under(self, envelope: Envelope) -> WireMessage:
        return envelope.wrap(self.body, routing_key(type(self.event)))
