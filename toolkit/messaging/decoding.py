"""How bytes become a message that a step can take.

`Decoder.read` turns a `WireMessage` into a `Message`. Whatever can't be read is an `UnreadableError`, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from toolkit.clock import Clock
from toolkit.declaration.encoding import own_id
from toolkit.declaration.events import SAGA_ID, AbortRequested, EndRequested, Event, Saga, SagaEnded, is_saga_id
from toolkit.declaration.text_redaction import redact
from toolkit.errors import UnreadableError, describe
from toolkit.ids import derived_id, trace_id_of
from toolkit.messaging.envelope import (
    ABOUT_ONE_SAGA,
    ATTEMPT,
    CAUSATION_ID,
    CONTROL_EVENTS,
    DEADLINE,
    DEFERRED_UNTIL,
    LONGEST_TEXT,
    NUDGE,
    OCCURRED_AT,
    SAGA_TYPE,
    SENT_BY,
    STARTED_AT,
    TRACEPARENT,
    VERSION,
    Envelope,
    Message,
    WireMessage,
)
from toolkit.messaging.senders import Senders

#: What a transport puts in place of headers that it could not decode; a message that has it is a dead letter.
UNDECODABLE = "x-undecodable"

#: A control message is the toolkit's own and may be that large, whatever the settings say of others: a `SagaEnded`
#: names the 1,000 sagas that ended in the largest batch.
_LARGEST_CONTROL = 128 * 1024

#: What a message may say of a time: the epoch of AMQP's timestamps, and an end that no timeout reaches.
_FIRST_YEAR, _LAST_YEAR = 1970, 2999

#: Where that ends, since the epoch.
_LAST_SECOND = datetime(_LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()

#: What AMQP calls what its client library makes of a header.
_TYPES: dict[type, str] = {
    bool: "a boolean", int: "an integer", float: "a float", Decimal: "a decimal", datetime: "a timestamp",
    str: "a text", list: "an array", dict: "a table",
}  # fmt: skip

#: What AMQP's integers hold for sure.
_DIGITS = 18

#: Of more faults in one message only their number is given: to describe each takes longer than to find it.
_MOST_FAULTS = 1_000

#: A larger body is not read to find its saga's id: RabbitMQ 4 takes none by itself, and this takes a tenth of a second.
_MOST_PARSED = 16 * 1024 * 1024

#: A longer header is not repeated in an error.
_MOST_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that no participant can take, with the reason; it goes to the dead letters."""

    wire: WireMessage
    reason: str
    detail: str
    saga_type: str | None = None


class Decoder:
    """The events that one service hears, and how to read them.

    `former` are the names of events that only a former release consumed; the transport finds out which.
    `trace` names the trace, by saga type and id, of a message that belongs to none; without it nobody asks.
    `senders` knows who may send what; without it only the routing key is checked.
    """

    def __init__(
        self,
        events: Iterable[type[Event]],
        sagas: Iterable[Saga],
        *,
        max_body: int,
        trace: Callable[[str, str], str] | None = None,
        senders: Senders | None = None,
    ) -> None:
        self._events = {event.__name__: event for event in (*events, *CONTROL_EVENTS)}
        self._sagas = {saga.name: saga for saga in sagas}
        self._started_by = {saga.starts_with: saga for saga in self._sagas.values()}
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
        """Return the message with every gap of a foreign client filled.

        Raises:
            UnreadableError: not its sender's to send, too large, of an unknown type or version, not JSON, of a broken
                schema, or without ids; its text goes into logs, so what is sensitive in the body is masked there,
                wherever it came from.
        """
        event_type = self._events.get(_name(wire))
        if UNDECODABLE in wire.headers:
            raise UnreadableError("broken header", "the headers can't be decoded: send them by AMQP 0.9.1's types")
        if event_type:
            self._senders.check(event_type, wire)
        most = max(self._max_body, _LARGEST_CONTROL) if event_type in CONTROL_EVENTS else self._max_body
        if len(wire.body) > most:
            raise UnreadableError("too large", f"{len(wire.body)} bytes, at most {most} are taken")
        try:
            return self._read(wire, clock)
        except UnreadableError as error:
            raise UnreadableError(error.reason, redact(event_type, wire.body, error.detail)) from error

    def _read(self, wire: WireMessage, clock: Clock) -> Message:
        event_type = self._event_type(wire)
        event = _parse(event_type, wire.body)
        if isinstance(event, SagaEnded) and (saga := self._sagas.get(event.saga_type)):
            self._senders.check_end(event, saga, wire)
        saga_type, saga_id = self._saga(wire, event)
        headers = wire.headers
        occurred_at = _time(headers, OCCURRED_AT) or _sent_at(wire) or clock.now()
        envelope = Envelope.of(
            event_type,
            event_id=_printable(wire.message_id or derived_id(saga_type, saga_id, event_type.__name__), "message id"),
            saga=(saga_type, saga_id),
            occurred_at=occurred_at,
            causation_id=_text(headers, CAUSATION_ID),
            deadline=_time(headers, DEADLINE),
            attempt=_number(headers, ATTEMPT, default=1),
            deferred_until=_number(headers, DEFERRED_UNTIL, default=0),
            traceparent=self._traceparent(headers, saga_type, saga_id),
            started_at=occurred_at if event_type in self._started_by else _time(headers, STARTED_AT),
            nudge=_text(headers, NUDGE) or "",
            sent_by=_text(headers, SENT_BY),
        )
        return Message(envelope, event, wire.body)

    def _traceparent(self, headers: Mapping[str, Any], saga_type: str, saga_id: str) -> str | None:
        brought = _text(headers, TRACEPARENT)
        if self._trace is None or not saga_id or trace_id_of(brought):
            return brought
        return self._trace(saga_type, saga_id)

    def _event_type(self, wire: WireMessage) -> type[Event]:
        name = _name(wire)
        event_type = self._events.get(name)
        if event_type is None:
            raise self._unknown(name)
        version = _number(wire.headers, VERSION, default=event_type.__version__)
        if version != event_type.__version__:
            raise UnreadableError(
                "unknown version", f"{name} came in version {version}, known is {event_type.__version__}"
            )
        return event_type

    def _unknown(self, name: str) -> UnreadableError:
        if name in self.former:
            told = f"{name!r} was consumed by a former release of this service, and is no longer"
            return UnreadableError("no longer consumed", told)
        return UnreadableError("unknown type", f"{name!r} is not an event that this service hears")

    def _saga(self, wire: WireMessage, event: Event) -> tuple[str, str]:
        """Return the saga's type and id.

        The starting event's own id field wins over the correlation id: clients set random ones, and the same
        order sent twice has to be one saga.
        """
        if started := self._started_by.get(type(event)):
            return started.name, _saga_id(own_id(event, started), f"{type(event).__name__}.{started.id_field}")
        if isinstance(event, SagaEnded):
            return event.saga_type, ""
        if isinstance(event, AbortRequested | EndRequested):
            return event.saga_type, event.saga_id
        saga_type = _text(wire.headers, SAGA_TYPE) or self._only_saga()
        if saga_type not in self._sagas:
            raise UnreadableError("unknown saga", f"{saga_type!r} is not a saga that this service takes part in")
        saga_id = _saga_id(wire.correlation_id, "the correlation id")
        if (own := own_id(event, self._sagas[saga_type])) not in (None, saga_id):
            raise UnreadableError("two saga ids", f"the body is of the saga {own!r}, the correlation id is {saga_id!r}")
        return saga_type, saga_id

    def under_its_saga(self, wire: WireMessage) -> WireMessage:
        """Return a message that is given up under its saga's id, so that it is found by that among the dead letters.

        As in what is read, a starting event's own id field counts, and the correlation id of any other event; where
        that is none, the saga's id field in the body. A redrive sends it under that id.
        """
        event_type = self._events.get(_name(wire))
        is_its_own = event_type in ABOUT_ONE_SAGA or event_type in self._started_by
        if not is_its_own and is_saga_id(wire.correlation_id or ""):
            return wire
        fields = _fields(wire.body)
        found = {value for name in self._id_fields(event_type, wire) if isinstance(value := fields.get(name), str)}
        ids = [each for each in found if is_saga_id(each)]
        return replace(wire, correlation_id=ids[0]) if len(ids) == 1 else wire

    def _id_fields(self, event_type: type[Event] | None, wire: WireMessage) -> set[str]:
        """Return the fields that may hold the saga's id in such an event; in an unknown one any saga's may."""
        if event_type in ABOUT_ONE_SAGA:
            return {"saga_id"}
        if event_type and (started := self._started_by.get(event_type)):
            return {started.id_field}
        named = self._sagas.get(str(wire.headers.get(SAGA_TYPE)))
        ids = {saga.id_field for saga in ([named] if named else self._sagas.values())}
        return ids if event_type is None else ids & event_type.model_fields.keys()

    def saga_type_of(self, wire: WireMessage) -> str | None:
        """Return the type of the saga that a message which is given up belongs to, where its event alone tells."""
        event_type = self._events.get(_name(wire))
        started = self._started_by.get(event_type) if event_type else None
        return started.name if started else None if SAGA_TYPE in wire.headers else self._only_saga()

    def _only_saga(self) -> str | None:
        return next(iter(self._sagas)) if len(self._sagas) == 1 else None


def _name(wire: WireMessage) -> str:
    return wire.type or wire.routing_key.rpartition(".")[2]


def _fields(body: bytes) -> dict[str, Any]:
    """Return the fields of a body; none where it is no JSON object, or larger than is worth the time."""
    try:
        fields = from_json(body) if len(body) <= _MOST_PARSED else None
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


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


def _saga_id(value: str | None, where: str) -> str:
    try:
        return SAGA_ID.validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]["msg"]
        raise UnreadableError("no saga id", f"{where} is {value!r}: {fault}") from error


def _text(headers: Mapping[str, Any], name: str) -> str | None:
    value = _plain(headers.get(name))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _broken(name, value, "a text")
    return _printable(str(value), name)


def _plain(value: Any) -> Any:
    """Return the text that bytes hold: clients have three AMQP types for one."""
    return bytes(value).decode(errors="replace") if isinstance(value, bytes | bytearray) else value


def _broken(name: str, value: object, cure: str) -> UnreadableError:
    """Return the error of a header whose value can't be what is meant: its name, its type and the cure."""
    shown = repr(value)
    # A part of a long one would be all that is shown of a secret, and nobody could tell that it is one.
    if len(shown) > _MOST_SHOWN:
        shown = f"a text of {len(value)} characters" if isinstance(value, str) else "too long to be shown"
    return UnreadableError("broken header", f"{name} is {shown}, {_type_of(value)}, not {cure}")


def _type_of(value: object) -> str:
    return next((word for kind, word in _TYPES.items() if isinstance(value, kind)), "a value of no AMQP type")


def _printable(value: str, name: str) -> str:
    # PostgreSQL keeps no NUL in a text, and nothing else here is worth keeping unseen.
    if len(value) > LONGEST_TEXT or not value.isprintable():
        raise UnreadableError("broken header", f"{name} is not a printable text of at most {LONGEST_TEXT} characters")
    return value


def _number(headers: Mapping[str, Any], name: str, *, default: int) -> int:
    value = _plain(headers.get(name))
    if value is None:
        return default
    is_whole = isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value)
    text = str(int(value)) if is_whole else str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise _broken(name, value, f"a whole number of up to {_DIGITS} digits, from 0")
    return int(text)


def _sent_at(wire: WireMessage) -> datetime | None:
    return _plausible(wire.timestamp, "timestamp") if wire.timestamp else None


def _time(headers: Mapping[str, Any], name: str) -> datetime | None:
    value = _plain(headers.get(name))
    if value is None:
        return None
    try:
        moment = _moment(value)
    except (ValueError, OverflowError, OSError) as error:
        raise _broken(name, value, "a time in ISO 8601, a timestamp, or seconds since 1970") from error
    return _plausible(moment if moment.tzinfo else moment.replace(tzinfo=UTC), name)


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        seconds = float(value)  # what would lie beyond the last year that is taken are milliseconds
        return datetime.fromtimestamp(seconds if seconds < _LAST_SECOND else seconds / 1000, UTC)
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    raise ValueError("no time is written so")


def _plausible(moment: datetime, name: str) -> datetime:
    # Near the ends of the calendar adding a timeout, or changing the zone, raises.
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise UnreadableError("broken header", f"{name} is {moment}, not between {_FIRST_YEAR} and {_LAST_YEAR}")
    return moment
