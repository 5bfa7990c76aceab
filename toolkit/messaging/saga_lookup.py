"""Which saga a message belongs to, by its event, its headers and its correlation id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from toolkit.declaration.encoding import own_id
from toolkit.declaration.events import (
    SAGA_ID,
    AbortRequested,
    EndRequested,
    Event,
    Saga,
    SagaEnded,
    SagaWaits,
    is_saga_id,
)
from toolkit.errors import UnreadableError
from toolkit.messaging.envelope import ABOUT_ONE_SAGA, SAGA_TYPE, WireMessage
from toolkit.messaging.header_values import text_of

#: A larger body is not parsed for its saga's id: RabbitMQ 4's own limit is this, and parsing takes a tenth of a second.
_MOST_PARSED = 16 * 1024 * 1024


class SagaLookup:
    """The sagas that one service takes part in.

    `types` has the saga type of each event that the service consumes in one saga only: such an event needs no header.
    """

    def __init__(self, sagas: Iterable[Saga], types: Mapping[type[Event], str]) -> None:
        self._sagas = {saga.name: saga for saga in sagas}
        self._types = types
        self._started_by = {saga.starts_with: saga for saga in self._sagas.values()}

    def named(self, saga_type: str) -> Saga | None:
        """Return the saga of this type."""
        return self._sagas.get(saga_type)

    def started_by(self, event_type: type[Event] | None) -> Saga | None:
        """Return the saga that such an event starts."""
        return self._started_by.get(event_type) if event_type else None

    def saga_of(self, wire: WireMessage, event: Event) -> tuple[str, str]:
        """Return the saga's type and id.

        The starting event's own id field takes precedence over the correlation id: clients set random ones, and the
        same order sent twice has to be one saga.

        Raises:
            UnreadableError: the saga is unknown, or its id is missing or ambiguous.
        """
        if started := self._started_by.get(type(event)):
            return started.name, _saga_id(own_id(event, started), f"{type(event).__name__}.{started.id_field}")
        if isinstance(event, SagaEnded):
            return event.saga_type, ""
        if isinstance(event, AbortRequested | EndRequested | SagaWaits):
            return event.saga_type, event.saga_id
        saga_type = text_of(wire.headers, SAGA_TYPE) or self._only_saga(type(event))
        if saga_type not in self._sagas:
            raise UnreadableError("unknown saga", f"{saga_type!r} is not a saga that this service takes part in")
        saga_id = _saga_id(wire.correlation_id, "the correlation id")
        if (own := own_id(event, self._sagas[saga_type])) not in (None, saga_id):
            raise UnreadableError("two saga ids", f"the body is of the saga {own!r}, the correlation id is {saga_id!r}")
        return saga_type, saga_id

    def under_its_saga(self, wire: WireMessage, event_type: type[Event] | None) -> WireMessage:
        """Return an unreadable message with its saga's id as correlation id, by which an operator finds it.

        As in a readable message, a starting event's own id field counts, and the correlation id of any other event;
        without one, the saga's id field in the body. A redrive sends the message under that id.
        """
        is_its_own = event_type in ABOUT_ONE_SAGA or event_type in self._started_by
        if not is_its_own and is_saga_id(wire.correlation_id or ""):
            return wire
        fields = _fields(wire.body)
        found = {value for name in self._id_fields(event_type, wire) if isinstance(value := fields.get(name), str)}
        ids = [each for each in found if is_saga_id(each)]
        return replace(wire, correlation_id=ids[0]) if len(ids) == 1 else wire

    def type_of(self, wire: WireMessage, event_type: type[Event] | None) -> str | None:
        """Return the saga type of an unreadable message, when its event alone determines it."""
        if started := self.started_by(event_type):
            return started.name
        return None if SAGA_TYPE in wire.headers else self._only_saga(event_type)

    def _id_fields(self, event_type: type[Event] | None, wire: WireMessage) -> set[str]:
        """Return the fields that may hold the saga's id in such an event; in an unknown one any saga's may."""
        if event_type in ABOUT_ONE_SAGA:
            return {"saga_id"}
        if started := self.started_by(event_type):
            return {started.id_field}
        named = self._sagas.get(str(wire.headers.get(SAGA_TYPE)))
        ids = {saga.id_field for saga in ([named] if named else self._sagas.values())}
        return ids if event_type is None else ids & event_type.model_fields.keys()

    def _only_saga(self, event_type: type[Event] | None) -> str | None:
        """Return the type of the only saga to which such an event may belong here."""
        only = next(iter(self._sagas)) if len(self._sagas) == 1 else None
        return self._types.get(event_type, only) if event_type else only


def _fields(body: bytes) -> dict[str, Any]:
    """Return the fields of a body; none when it is not a JSON object, or too large to parse."""
    try:
        fields = from_json(body) if len(body) <= _MOST_PARSED else None
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _saga_id(value: str | None, where: str) -> str:
    try:
        return SAGA_ID.validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]["msg"]
        raise UnreadableError("no saga id", f"{where} is {value!r}: {fault}") from error
