"""Convert between AMQP messages and `WireMessage`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from pamqp.commands import Basic

from toolkit.ids import new_id
from toolkit.messaging.envelope import CAME_BY, ONLY_FROM_ITSELF, SENT_BY, WireMessage
from toolkit.messaging.senders import FORWARDED, detour_of
from toolkit.persistence.dead_letters import DeadLetter

#: The broker's own `x-death` is two deep; what a client nests deeper is not kept.
_DEEPEST = 10
#: Nearly all headers are of these types, which need no conversion.
_KEPT = frozenset((str, int, bool, type(None)))


def properties_of(message: WireMessage, *, login: str) -> Basic.Properties:
    """Return the properties of a persistent message, with the login for the broker to verify."""
    return Basic.Properties(
        message_id=message.message_id,
        correlation_id=message.correlation_id,
        message_type=message.type,
        timestamp=message.timestamp,
        headers=dict(message.headers),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        user_id=login,
    )


def wire_of(
    body: bytes, routing_key: str | None, properties: Basic.Properties, *, exchange: str, own: str, shared: str
) -> WireMessage:
    """Return a message received through `exchange`, its times in UTC, with the login that the broker verified.

    A message through the service's `own` exchange keeps the login and the route of its first sender, the operator who
    answered, its timer, and its reminder's number; on the `shared` exchange, and on others, any client may write these
    headers.
    """
    timestamp = properties.timestamp
    headers = _headers(properties.headers) if properties.headers else {}
    if exchange != own:
        headers[SENT_BY] = properties.user_id or ""
        for name in ONLY_FROM_ITSELF:
            headers.pop(name, None)
        if detour := detour_of(exchange, shared, headers):
            headers[CAME_BY] = detour
    return WireMessage(
        body=body,
        routing_key=routing_key or "",
        message_id=properties.message_id,
        correlation_id=properties.correlation_id,
        type=properties.message_type,
        timestamp=timestamp.replace(tzinfo=UTC) if timestamp and timestamp.tzinfo is None else timestamp,
        headers=headers,
        exchange=exchange,
    )


def given_up(raw: AbstractIncomingMessage, service: str, *, queue: str, shared: str, dead: str) -> DeadLetter:
    """Return a message of the broker's dead-letter queue as a dead letter, with the broker's reason.

    `dead` is the exchange of dead letters. Only a message from the service's own queue keeps its first route there:
    other logins may bind to that exchange, or let a queue of theirs dead-letter to it.
    """
    deaths = _deaths(_headers(raw.headers or {}))
    death = deaths[0] if deaths else {}
    is_own = raw.exchange == dead and bool(deaths) and all(each.get("queue") == queue for each in deaths)
    came_by = str(death.get("exchange", raw.exchange)) if is_own else raw.exchange or dead
    wire = wire_of(raw.body, raw.routing_key, raw.properties, exchange=came_by, own=queue, shared=shared)
    if is_own and came_by in ("", shared):
        wire = replace(wire, headers={name: value for name, value in wire.headers.items() if name != CAME_BY})
    word = str(death.get("reason") or "given up by the broker").replace("_", " ")
    circumstances = f"from {death.get('queue')} at {death.get('time')}" if death else "without a reason"
    return DeadLetter(
        id=new_id(),
        service=service,
        reason=word,
        error=f"the broker moved the message into {queue}.dead, {circumstances}",
        message=replace(wire, routing_key=_first_key(death) or wire.routing_key),
        at=datetime.now(UTC),
    )


def _deaths(headers: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the broker's notes on the message's dead-letterings, the latest first; a client may have written them."""
    deaths = headers.get(FORWARDED)
    return [each if isinstance(each, dict) else {} for each in deaths] if isinstance(deaths, list) else []


def _first_key(death: Mapping[str, Any]) -> str | None:
    keys = death.get("routing-keys")
    return str(keys[0]) if isinstance(keys, list) and keys else None


def _headers(headers: Mapping[str, Any]) -> dict[str, object]:
    if _KEPT.issuperset(map(type, headers.values())):
        return dict(headers)
    return {name: value if type(value) in _KEPT else _plain(value) for name, value in headers.items()}


def _plain(value: Any, depth: int = 0) -> object:
    """Return a header's value in JSON's types, in which it is stored: AMQP has more types, and no limit of depth."""
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode(errors="replace")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | dict) and depth == _DEEPEST:
        return "…"
    if isinstance(value, list):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each, depth + 1) for name, each in value.items()}
    return value
