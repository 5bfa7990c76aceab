"""Decodes bytes into a message that a step can take.

`Decoder.read` turns a `WireMessage` into a `Message`, or raises `UnreadableError`; it never guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from toolkit.clock import Clock
from toolkit.declaration.events import Event, Saga, SagaEnded
from toolkit.declaration.text_redaction import redact
from toolkit.errors import UnreadableError, describe
from toolkit.ids import derived_id, trace_id_of
from toolkit.messaging.addresses import address_of, reply_of
from toolkit.messaging.envelope import (
    ANSWERED_BY,
    ATTEMPT,
    CAUSATION_ID,
    CONTROL_EVENTS,
    DEADLINE,
    DEFERRED_UNTIL,
    NUDGE,
    OCCURRED_AT,
    REMINDER,
    SENT_BY,
    STARTED_AT,
    TIMER,
    TRACEPARENT,
    VERSION,
    Envelope,
    Message,
    WireMessage,
)
from toolkit.messaging.header_values import number_of, plausible, printable, text_of, time_of
from toolkit.messaging.saga_lookup import SagaLookup
from toolkit.messaging.senders import Senders
from toolkit.protocol.commands import Address

#: A transport replaces headers that it could not decode by this one; such a message becomes a dead letter.
UNDECODABLE = "x-undecodable"

#: The size limit of the toolkit's own control messages, whatever the settings allow for others: a `SagaEnded` names
#: the 1,000 sagas that ended in the largest batch.
_LARGEST_CONTROL = 128 * 1024

#: For more faults in one message only their number is given: describing each takes longer than finding it.
_MOST_FAULTS = 1_000


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that no participant can take, with the reason; it becomes a dead letter."""

    wire: WireMessage
    reason: str
    detail: str
    saga_type: str | None = None


class Decoder:
    """Reads the events that one service consumes.

    - `saga_types`: the saga type of each event that the service consumes in one saga only.
    - `former`: the names of events that only a former release consumed; the transport sets them.
    - `trace`: names the trace, by saga type and id, of a message without one; None when tracing is off.
    - `senders`: checks who may send what; the default checks the routing key only.
    """

    def __init__(
        self,
        events: Iterable[type[Event]],
        sagas: Iterable[Saga],
        *,
        max_body: int,
        saga_types: Mapping[type[Event], str] = MappingProxyType({}),
        trace: Callable[[str, str], str] | None = None,
        senders: Senders | None = None,
    ) -> None:
        self._events = {event.__name__: event for event in (*events, *CONTROL_EVENTS)}
        self._sagas = SagaLookup(sagas, saga_types)
        self._max_body = max_body
        self._trace = trace
        self._senders = senders or Senders()
        self.former: frozenset[str] = frozenset()

    def receive(self, wire: WireMessage, clock: Clock) -> Message | Unreadable:
        """Return the message, or why it can't be read."""
        try:
            return self.read(wire, clock)
        except UnreadableError as error:
            return Unreadable(self.under_its_saga(wire), error.reason, error.detail, self.saga_type_of(wire))

    def read(self, wire: WireMessage, clock: Clock) -> Message:
        """Return the message, with the envelope of a foreign client completed.

        Raises:
            UnreadableError: not its sender's to send, too large, of an unknown type or version, not JSON, against the
                schema, or without ids; its text goes into logs, so sensitive values of the body are redacted in it.
        """
        event_type = self._events.get(_name(wire))
        if UNDECODABLE in wire.headers:
            raise UnreadableError("broken header", "the headers can't be decoded: send them by AMQP 0.9.1's types")
        address = address_of(wire)
        if event_type:
            self._senders.check(event_type, wire, address)
        most = max(self._max_body, _LARGEST_CONTROL) if event_type in CONTROL_EVENTS else self._max_body
        if len(wire.body) > most:
            raise UnreadableError("too large", f"{len(wire.body)} bytes, at most {most} are taken")
        try:
            return self._read(wire, clock, address)
        except UnreadableError as error:
            raise UnreadableError(error.reason, redact(event_type, wire.body, error.detail)) from error

    def under_its_saga(self, wire: WireMessage) -> WireMessage:
        """Return an unreadable message with its saga's id as correlation id, when that can be found."""
        return self._sagas.under_its_saga(wire, self._events.get(_name(wire)))

    def saga_type_of(self, wire: WireMessage) -> str | None:
        """Return the saga type of an unreadable message, when its event alone determines it."""
        return self._sagas.type_of(wire, self._events.get(_name(wire)))

    def _read(self, wire: WireMessage, clock: Clock, address: Address | None) -> Message:
        event_type = self._event_type(wire)
        event = _parse(event_type, wire.body)
        if isinstance(event, SagaEnded) and (saga := self._sagas.named(event.saga_type)):
            self._senders.check_end(event, saga, wire)
        saga_type, saga_id = self._sagas.saga_of(wire, event)
        headers = wire.headers
        occurred_at = time_of(headers, OCCURRED_AT) or _sent_at(wire) or clock.now()
        is_start = address is None and self._sagas.started_by(event_type) is not None
        envelope = Envelope(
            event_id=printable(wire.message_id or derived_id(saga_type, saga_id, event_type.__name__), "message id"),
            event_type=event_type.__name__,
            version=event_type.__version__,
            saga_id=saga_id,
            saga_type=saga_type,
            occurred_at=occurred_at,
            causation_id=text_of(headers, CAUSATION_ID),
            deadline=time_of(headers, DEADLINE),
            attempt=number_of(headers, ATTEMPT, default=1),
            deferred_until=number_of(headers, DEFERRED_UNTIL, default=0),
            traceparent=self._traceparent(headers, saga_type, saga_id),
            started_at=occurred_at if is_start else time_of(headers, STARTED_AT),
            nudge=text_of(headers, NUDGE) or "",
            timer=(text_of(headers, TIMER) or "") if TIMER in headers else "",
            reminder=number_of(headers, REMINDER, default=0) if REMINDER in headers else 0,
            address=address,
            reply=reply_of(headers),
            sent_by=text_of(headers, SENT_BY),
            answered_by=text_of(headers, ANSWERED_BY) if ANSWERED_BY in headers else None,
        )
        return Message(envelope, event, wire.body, wire.exchange)

    def _traceparent(self, headers: Mapping[str, Any], saga_type: str, saga_id: str) -> str | None:
        received = text_of(headers, TRACEPARENT)
        if self._trace is None or not saga_id or trace_id_of(received):
            return received
        return self._trace(saga_type, saga_id)

    def _event_type(self, wire: WireMessage) -> type[Event]:
        name = _name(wire)
        event_type = self._events.get(name)
        if event_type is None:
            raise self._unknown(name)
        version = number_of(wire.headers, VERSION, default=event_type.__version__)
        if version != event_type.__version__:
            raise UnreadableError(
                "unknown version", f"{name} came in version {version}, known is {event_type.__version__}"
            )
        return event_type

    def _unknown(self, name: str) -> UnreadableError:
        if name in self.former:
            detail = f"{name!r} was consumed by a former release of this service, and is no longer"
            return UnreadableError("no longer consumed", detail)
        return UnreadableError("unknown type", f"{name!r} is not an event that this service consumes")


def _name(wire: WireMessage) -> str:
    return wire.type or wire.routing_key.rpartition(".")[2]


def _sent_at(wire: WireMessage) -> datetime | None:
    return plausible(wire.timestamp, "timestamp") if wire.timestamp else None


def _parse(event_type: type[Event], body: bytes) -> Event:
    try:
        return event_type.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MOST_FAULTS:
            raise UnreadableError("schema", f"{event_type.__name__}: {error.error_count()} values are wrong") from None
        found = error.errors(include_url=False, include_context=False, include_input=False)
        first = found[0]
        if first["type"] == "json_invalid":
            raise UnreadableError("not JSON", first["msg"]) from error
        if first["type"] == "model_type":
            raise UnreadableError("not an object", first["msg"]) from error
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in found[:5])
        raise UnreadableError("schema", f"{event_type.__name__}: {faults}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a validator of the service's own may raise anything
        raise UnreadableError("schema", f"{event_type.__name__}: {describe(error)}") from error
