"""One service's messages as an AsyncAPI 3.1 document, generated from its contract.

It is self-contained: each event's schema is included with all its definitions, and no reference leads out of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.declaration.contract import Contract, EventContract, HandlerContract, event_contract
from toolkit.declaration.events import SagaEnded
from toolkit.messaging import envelope

#: The version of AsyncAPI's AMQP bindings.
_BINDING = "0.3.0"
_HEADERS = "Envelope"
#: The channel that is the service's own queue.
_QUEUE = "queue"
_END = SagaEnded.__name__
_CONTROL = tuple(event_contract(each) for each in envelope.CONTROL_EVENTS)

#: The parts of an envelope by their names on the wire; `x-amqp-property` marks AMQP properties, the others are headers.
_PROPERTIES = {
    "message_id": "the event's id: UUIDv7, the same for every copy",
    "correlation_id": "the saga's id",
    "type": "the event's name",
    "timestamp": "when it was emitted, in whole seconds",
}
_TEXTS = {
    envelope.SAGA_TYPE: "the saga's name",
    envelope.OCCURRED_AT: "when it was emitted, ISO 8601, to the microsecond",
    envelope.STARTED_AT: "when the saga began, ISO 8601; passed on unchanged",
    envelope.CAUSATION_ID: "the message id of the event that caused this one",
    envelope.DEADLINE: "when the whole saga's forward steps refuse, ISO 8601",
    envelope.TRACEPARENT: "the W3C trace parent; passed on unchanged",
    envelope.SENT_BY: "set by a participant for itself: the login that sent the event first",
    envelope.CAME_BY: "set by a participant for itself: its first route, if the broker checked no key on it",
    envelope.NUDGE: "the id of the nudge that sent it again; a service that knows the saga's end answers with it",
    envelope.ANSWERED_BY: "set by a service for itself: the operator who gave the answer",
    envelope.TIMER: "the step whose deadline the message announces to its own service",
    envelope.ASK: "of a coordinator's command: the step that shall run",
    envelope.UNDO: "of a coordinator's command: the step that shall be undone",
    envelope.REPLY: "the step that replies to a command with this event",
    envelope.OUTCOME: "its outcome: completed, final, refused or undone",
}
_NUMBERS = {
    envelope.VERSION: "the event's version",
    envelope.ATTEMPT: "which attempt at this delivery it is, from 1; for reading only",
    envelope.REMINDER: "of a timer: which reminder of the step's open question it is, from 1",
    envelope.DEFERRED_UNTIL: "set by a service for itself: the second, since the epoch, until which it is deferred",
}

Document = dict[str, Any]


def asyncapi(contract: Contract, *, exchange: str, queue: str) -> Document:
    """Return the document; `exchange` is the topic exchange, `queue` the service's own queue."""
    consumed = [*contract.consumed(), *_CONTROL]
    emitted = [*contract.emitted(), *(each for each in _CONTROL if each.name != _END or contract.ends_sagas)]
    events = {event.name: event for event in (*consumed, *emitted)}
    starts = {saga.starts_with: saga.id_field for saga in contract.sagas}
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": contract.service,
            "version": contract.toolkit_version,
            "description": f"What {contract.service} consumes and emits. By saga-toolkit {contract.toolkit_version}.",
        },
        "defaultContentType": "application/json",
        "channels": {event.routing_key: _channel(event, exchange) for event in events.values()}
        | {_QUEUE: _own_queue(contract.service, queue, consumed)},
        "operations": {f"receive.{event.name}": _receive(event, contract) for event in consumed}
        | {f"send.{event.name}": _send(event, contract) for event in emitted},
        "components": {
            "messages": {name: _message(event, starts.get(name)) for name, event in events.items()},
            "schemas": {_HEADERS: _headers()} | dict(each for event in events.values() for each in _schemas(event)),
        },
    }


def _channel(event: EventContract, exchange: str) -> Document:
    topic = {"name": exchange, "type": "topic", "durable": True, "autoDelete": False}
    return {
        "address": event.routing_key,
        "title": event.name,
        "messages": {event.name: _ref("components", "messages", event.name)},
        "bindings": {"amqp": {"is": "routingKey", "exchange": topic, "bindingVersion": _BINDING}},
    }


def _own_queue(service: str, queue: str, consumed: list[EventContract]) -> Document:
    durable = {"name": queue, "durable": True, "exclusive": False, "autoDelete": False}
    return {
        "address": queue,
        "title": f"the queue of {service}",
        "description": "Bound to all that the service consumes; its own retries come by an exchange of that name.",
        "messages": {event.name: _ref("components", "messages", event.name) for event in consumed},
        "bindings": {
            "amqp": {
                "is": "queue",
                "queue": durable | {"x-arguments": {"x-queue-type": "quorum"}},
                "bindingVersion": _BINDING,
            }
        },
    }


def _receive(event: EventContract, contract: Contract) -> Document:
    listeners = [each for each in contract.handlers if event.name in each.triggers]
    binding = {"amqp": {"ack": True, "bindingVersion": _BINDING}}
    return _operation("receive", event, listeners) | {"bindings": binding, "x-queue": _ref("channels", _QUEUE)}


def _send(event: EventContract, contract: Contract) -> Document:
    emitters = [each for each in contract.handlers if event.name in each.emits]
    binding = {"deliveryMode": 2, "mandatory": not event.optional, "timestamp": True, "bindingVersion": _BINDING}
    return _operation("send", event, emitters) | {"bindings": {"amqp": binding}}


def _operation(action: str, event: EventContract, handlers: list[HandlerContract]) -> Document:
    return {
        "action": action,
        "channel": _ref("channels", event.routing_key),
        "messages": [_ref("channels", event.routing_key, "messages", event.name)],
        "summary": "; ".join(f"{each.name}: {_first_line(each.description)}" for each in handlers)
        or _first_line(event.description),
        "x-handlers": [_handler(each) for each in handlers],
    }


def _handler(handler: HandlerContract) -> Document:
    """Return a handler's name, kind and saga; a join's slots, too: it runs once each of them holds an event."""
    slots = {"slots": {slot.name: list(slot.events) for slot in handler.slots}} if handler.is_join else {}
    return {"name": handler.name, "kind": handler.kind, "saga": handler.saga, **slots}


def _message(event: EventContract, id_field: str | None) -> Document:
    """Return the message; a starting event's saga id is in its body, whatever its correlation id is."""
    location = f"$message.payload#/{id_field}" if id_field else "$message.header#/correlation_id"
    message = {
        "name": event.name,
        "title": event.name,
        "summary": _first_line(event.description),
        "description": event.description,
        "contentType": "application/json",
        "headers": _ref("components", "schemas", _HEADERS),
        "correlationId": {"location": location, "description": "The saga's id."},
        "payload": _ref("components", "schemas", event.name),
        "bindings": {"amqp": {"messageType": event.name, "bindingVersion": _BINDING}},
        "x-owner": event.owner,
        "x-version": event.version,
        "x-optional": event.optional,
        "x-sensitive": list(event.sensitive),
    }
    return message | ({"examples": [{"name": event.name, "payload": event.example}]} if event.example else {})


def _headers() -> Document:
    properties = {
        name: {"type": "string", "description": what, "x-amqp-property": True} for name, what in _PROPERTIES.items()
    }
    texts = {name: {"type": "string", "description": what} for name, what in _TEXTS.items()}
    numbers = {name: {"type": "integer", "minimum": 0, "description": what} for name, what in _NUMBERS.items()}
    return {
        "type": "object",
        "description": "The envelope of every event: headers, or AMQP properties where marked so.",
        "properties": properties | texts | numbers,
    }


def _schemas(event: EventContract) -> Iterator[tuple[str, Document]]:
    """Yield the event's schema and those that it refers to, each under a name unique among all events."""
    schema = {name: value for name, value in event.json_schema.items() if name != "$defs"}
    yield event.name, _relocated(schema, event.name)
    for name, definition in event.json_schema.get("$defs", {}).items():
        yield f"{event.name}.{name}", _relocated(definition, event.name)


def _relocated(schema: Any, event: str) -> Any:
    """Return a schema whose references lead to the moved definitions; a reference has no siblings."""
    if isinstance(schema, list):
        return [_relocated(each, event) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {name: _relocated(value, event) for name, value in schema.items()}
    discriminator = moved.get("discriminator")
    if isinstance(discriminator, Mapping) and "propertyName" in discriminator:  # OpenAPI's
        moved["discriminator"] = discriminator["propertyName"]
    if not isinstance(reference := moved.get("$ref"), str):
        return moved
    target = _ref("components", "schemas", f"{event}.{reference.rpartition('/')[2]}")
    beside = {name: value for name, value in moved.items() if name != "$ref"}
    return beside | {"allOf": [target]} if beside else target


def _ref(*path: str) -> Document:
    return {"$ref": "/".join(("#", *path))}


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
