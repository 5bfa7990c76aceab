"""The envelope of an event on the wire.

A `WireMessage` holds what AMQP carries; a `Message` is a complete envelope with a validated event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from toolkit.declaration.events import AbortRequested, EndRequested, Event, SagaEnded, SagaWaits, routing_key
from toolkit.ids import derived_id, new_id
from toolkit.protocol.commands import Address, Reply

#: The envelope's headers, as they are spelled on the wire. A new one also needs a field of `Envelope`, its lines in
#: `headers` and in `Decoder._read`, its place in `HEADERS`, its meaning in asyncapi.py and docs/reference/wire.md; one
#: that no client may write, its place in `ONLY_FROM_ITSELF`; one that the next event passes on, `followed_by`; one that
#: a nudge or a replay has to repeat, a column of the log for `EmittedEvent.as_sent`.
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
TIMER = "timer"
REMINDER = "reminder"
ASK = "ask"
UNDO = "undo"
REPLY = "reply"
OUTCOME = "outcome"
SENT_BY = "sent-by"
ANSWERED_BY = "answered-by"
CAME_BY = "came-by"
HEADERS = (
    SAGA_TYPE, VERSION, CAUSATION_ID, OCCURRED_AT, DEADLINE, ATTEMPT, DEFERRED_UNTIL, TRACEPARENT, STARTED_AT,
    NUDGE, TIMER, REMINDER, ASK, UNDO, REPLY, OUTCOME, SENT_BY, ANSWERED_BY, CAME_BY,
)  # fmt: skip
#: The headers that only a message of a service to itself may have: a transport removes them from any other.
ONLY_FROM_ITSELF = (CAME_BY, ANSWERED_BY, TIMER, REMINDER)

#: The most characters of an id or of a text header, all printable: the limit of AMQP's short strings.
LONGEST_TEXT = 255

#: The prefixes of the headers that the broker adds to a message that it dead-letters.
BROKERS_OWN = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")

CONTROL_EVENTS: tuple[type[Event], ...] = (SagaEnded, AbortRequested, EndRequested, SagaWaits)
#: The control events about one saga, whose id is in their body.
ABOUT_ONE_SAGA = (AbortRequested, EndRequested, SagaWaits)


# Never changed, but not frozen, like the rows that follow from a message: a frozen object costs three times as much to
# make, and each message makes five.
@dataclass(slots=True)
class WireMessage:
    """A message as AMQP carries it; a foreign client may leave out all but the routing key and the body.

    `exchange` is the exchange that it was published to; None without a broker.
    """

    body: bytes
    routing_key: str
    message_id: str | None = None
    correlation_id: str | None = None
    type: str | None = None
    timestamp: datetime | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    exchange: str | None = None


@dataclass(slots=True, kw_only=True)
class Envelope:
    """The facts about one event, apart from its body.

    - `event_id`: UUIDv7, the same for every copy of the event.
    - `causation_id`: the event that made a step emit this one; None for the event that starts a saga.
    - `occurred_at`: when the event was emitted; deadlines count from here.
    - `deadline`: the whole saga's, set by the starting client; forward steps refuse at or after it.
    - `started_at`: when the starting event was emitted; the service that ends the saga computes its duration from it.
    - `attempt`: the attempt that this delivery is, counted from 1; an emitted event starts at 1 again.
    - `deferred_until`: the second, since the epoch, until which the message was deferred last; 0 if it never was.
    - `nudge`: the id of the nudge that sends the event again, empty the first time. A service that knows the saga's end
      answers a nudge with it.
    - `timer`: the step whose deadline this message announces to its own service; empty in every other message.
    - `reminder`: of a timer that reminds of the step's open question: its number, counted from 1; else 0.
    - `address`: of a coordinator's command, the step that it is for; `reply`: of that step's event, what it replies.
    - `sent_by`: the login that sent the event, verified by the broker; empty where the client set no user-id. Only
      messages that a service sends to itself keep it; None for an event that goes out for the first time.
    - `answered_by`: the operator who gave an answer through the toolkit; only a message that a service sends to itself
      has it.
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
    timer: str = ""
    reminder: int = 0
    address: Address | None = None
    reply: Reply | None = None
    sent_by: str | None = None
    answered_by: str | None = None

    @classmethod
    def of(
        cls,
        event_type: type[Event],
        *,
        saga: tuple[str, str],
        occurred_at: datetime,
        event_id: str | None = None,
        version: int | None = None,
        **facts: Any,
    ) -> Envelope:
        """Return the envelope of an event: under a new id and in its declared version, unless given.

        `saga` is the saga's type and id; `facts` are further fields.
        """
        saga_type, saga_id = saga
        return cls(
            event_id=event_id or new_id(),
            event_type=event_type.__name__,
            version=event_type.__version__ if version is None else version,
            saga_type=saga_type,
            saga_id=saga_id,
            occurred_at=occurred_at,
            **facts,
        )

    def followed_by(self, event_type: type[Event], *, at: datetime, traceparent: str | None) -> Envelope:
        """Return the envelope of an event that a step emits because of this one."""
        return Envelope(
            event_id=new_id(),
            event_type=event_type.__name__,
            version=event_type.__version__,
            saga_id=self.saga_id,
            saga_type=self.saga_type,
            occurred_at=at,
            causation_id=self.event_id,
            deadline=self.deadline,
            traceparent=traceparent,
            started_at=self.started_at,
        )

    @property
    def saga(self) -> tuple[str, str]:
        """The saga's type and id; sagas of different types may have the same id."""
        return self.saga_type, self.saga_id

    def headers(self) -> dict[str, str | int]:
        """Return the AMQP headers: the facts that have no AMQP property, without those that a receiver assumes."""
        headers: dict[str, str | int] = {
            SAGA_TYPE: self.saga_type,
            VERSION: self.version,
            OCCURRED_AT: text_of_time(self.occurred_at),
        }
        if self.attempt != 1:
            headers[ATTEMPT] = self.attempt
        if self.causation_id:
            headers[CAUSATION_ID] = self.causation_id
        if self.deadline:
            headers[DEADLINE] = text_of_time(self.deadline)
        if self.deferred_until:
            headers[DEFERRED_UNTIL] = self.deferred_until
        if self.traceparent:
            headers[TRACEPARENT] = self.traceparent
        if self.started_at:
            headers[STARTED_AT] = text_of_time(self.started_at)
        if self.nudge:
            headers[NUDGE] = self.nudge
        if self.timer:
            headers[TIMER] = self.timer
        if self.reminder:
            headers[REMINDER] = self.reminder
        if self.address:
            headers[self.address.verb.value] = self.address.step
        if self.reply:
            headers[REPLY], headers[OUTCOME] = self.reply.step, self.reply.outcome.value
        if self.sent_by is not None:
            headers[SENT_BY] = self.sent_by
        if self.answered_by:
            headers[ANSWERED_BY] = self.answered_by
        return headers

    def carry(self, event: Event, body: bytes | None = None) -> WireMessage:
        """Return the message that carries the event under its routing key; `body` is the event as JSON, if at hand."""
        return self.wrap(event.model_dump_json().encode() if body is None else body, type(event))

    def key_of(self, event_type: type[Event]) -> str:
        """Return the routing key of the event: that of its address, or its own."""
        return self.address.routing_key if self.address else routing_key(event_type)

    def wrap(self, body: bytes, event_type: type[Event]) -> WireMessage:
        """Return the message that carries this body under the event's routing key, or under that of its address."""
        return WireMessage(
            body=body,
            routing_key=self.key_of(event_type),
            message_id=self.event_id,
            correlation_id=self.saga_id,
            type=self.event_type,
            timestamp=self.occurred_at,
            headers=self.headers(),
        )


def starting_message(
    saga_type: str,
    saga_id: str,
    event: Event,
    *,
    now: datetime,
    traceparent: str | None = None,
    body: bytes | None = None,
) -> WireMessage:
    """Return the message that starts a saga with this event; its id follows from the saga's, so two are duplicates.

    `body` is the event as JSON, if at hand.
    """
    event_id = derived_id(saga_type, saga_id, type(event).__name__)
    saga = saga_type, saga_id
    envelope = Envelope.of(type(event), event_id=event_id, saga=saga, occurred_at=now, traceparent=traceparent)
    return envelope.carry(event, body)


def about_one_saga(
    event: AbortRequested | EndRequested | SagaWaits,
    *,
    now: datetime,
    traceparent: str | None = None,
    started_at: datetime | None = None,
) -> Envelope:
    """Return the envelope of a control message about one saga, under an id of its own."""
    saga = event.saga_type, event.saga_id
    return Envelope.of(type(event), saga=saga, occurred_at=now, traceparent=traceparent, started_at=started_at)


def abort_request(
    saga_type: str,
    saga_id: str,
    reason: str,
    *,
    now: datetime,
    traceparent: str | None = None,
    started_at: datetime | None = None,
) -> WireMessage:
    """Return the message that asks all services to refuse the steps of this saga that have not begun.

    `started_at`: when the saga began; a service that may have pruned the saga since ignores the request.
    """
    event = AbortRequested(saga_type=saga_type, saga_id=saga_id, reason=reason)
    envelope = about_one_saga(event, now=now, traceparent=traceparent, started_at=started_at)
    return envelope.carry(event)


@lru_cache(maxsize=1024)
def text_of_time(moment: datetime) -> str:
    """Return a time in ISO 8601; cached, since the messages of a batch share their time."""
    return moment.isoformat()


@dataclass(slots=True)
class Message:
    """A validated event with its envelope and the bytes of its body.

    `exchange` is the exchange that it came through; None without a broker.
    """

    envelope: Envelope
    event: Event
    body: bytes
    exchange: str | None = None

    @property
    def routing_key(self) -> str:
        """The key that it is published under: its address' or its event's."""
        return self.envelope.key_of(type(self.event))

    def on_attempt(self, attempt: int) -> WireMessage:
        """Return the same event as a message for this attempt."""
        return self._under(replace(self.envelope, attempt=attempt))

    def deferred_to(self, second: int) -> WireMessage:
        """Return the same event as a message that is deferred until this second, since the epoch."""
        return self._under(replace(self.envelope, deferred_until=second))

    def as_timer(self, step: str, *, reminder: int = 0) -> WireMessage:
        """Return the same event as the message that announces a step's deadline, or a reminder, to its own service."""
        fresh = replace(self.envelope, reply=None, attempt=1, deferred_until=0, nudge="")
        return self._under(replace(fresh, timer=step, reminder=reminder))

    def _under(self, envelope: Envelope) -> WireMessage:
        return envelope.wrap(self.body, type(self.event))
