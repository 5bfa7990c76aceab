"""What an AMQP message is to the toolkit, and the other way round."""

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
from toolkit.messaging.envelope import SENT_BY, WireMessage
from toolkit.persistence.dead_letters import DeadLetter

#: The broker's own `x-death` is two deep; what a client nests deeper is not kept.
_DEEPEST = 10
#: Nearly all headers are of these types, which need nothing.
_KEPT = (str, int, bool, type(None))


def properties_of(message: WireMessage, *, login: str) -> Basic.Properties:
    """Return what goes out beside the body: of a persistent message, with the login for the broker to verify."""
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
    body: bytes, routing_key: str | None, properties: Basic.Properties, *, exchange: str, own: str
) -> WireMessage:
    """Return what came in by an exchange, its times in UTC, with the login that the broker verified.

    What came by the service's `own` exchange has kept the login of the first time; elsewhere a stranger may write that.
    """
    timestamp = properties.timestamp
    headers = _headers(properties.headers or {})
    if exchange != own:
        headers[SENT_BY] = properties.user_id or ""
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


def given_up(raw: AbstractIncomingMessage, service: str, queue: str) -> DeadLetter:
    """Return a message of the dead-letter queue as a letter, with the reason that the broker wrote on it."""
    death = _death(_headers(raw.headers or {}))
    came_by = str(death.get("exchange", raw.exchange))
    wire = wire_of(raw.body, raw.routing_key, raw.properties, exchange=came_by, own=queue)
    word = str(death.get("reason") or "given up by the broker").replace("_", " ")
    told = f"it gave it up in {death.get('queue')} at {death.get('time')}" if death else "it does not say why"
    return DeadLetter(
        id=new_id(),
        service=service,
        reason=word,
        error=f"the broker put the message into {queue}.dead: {told}",
        message=replace(wire, routing_key=_first_key(death) or wire.routing_key),
        at=datetime.now(UTC),
    )


def _death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the broker says of the latest time that it gave the message up; anybody may have written there."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    return latest if isinstance(latest, dict) else {}


def _first_key(death: Mapping[str, Any]) -> str | None:
    keys = death.get("routing-keys")
    return str(keys[0]) if isinstance(keys, list) and keys else None


def _headers(headers: Mapping[str, Any]) -> dict[str, object]:
    return {name: value if type(value) in _KEPT else _plain(value) for name, value in headers.items()}


def _plain(value: Any, depth: int = 0) -> object:
    """Return a header's value of types that JSON has, by which it is kept: AMQP has more, and nests without end."""
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
