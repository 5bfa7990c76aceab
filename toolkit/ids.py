"""Identifiers: random ones that sort by time, and derived ones that make the same request the same message."""

from __future__ import annotations

import hashlib
import re
import uuid

import uuid_utils

#: The namespace of the derived message ids; an arbitrary constant that never changes.
_NAMESPACE = uuid.UUID("6f1f3c6e-3f0b-5d0e-9a53-5b2f6f0a7c11")
#: W3C's traceparent: its version, the trace's id, the span's, and flags; neither id may be all zeros.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)


def new_id() -> str:
    """Return a fresh UUIDv7: unique anywhere, and in order of creation within one process."""
    return str(uuid_utils.uuid7())


def derived_id(saga_type: str, saga_id: str, event_type: str) -> str:
    """Return the message id for a client that gave none: the same event of the same saga has the same id."""
    return str(uuid.uuid5(_NAMESPACE, f"{saga_type}:{saga_id}:{event_type}"))


def derived_trace(saga_type: str, saga_id: str) -> tuple[str, str]:
    """Return the ids of a saga's trace and of its root span, in hex, for messages without a traceparent.

    They are derived, so that a duplicate, a replay and an abort of the saga belong to the same trace.
    """
    digest = hashlib.sha256(f"{saga_type}:{saga_id}".encode()).hexdigest()
    return digest[:32], digest[32:48]


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the trace's id; None where the traceparent is missing or invalid."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return match[1] if match else None


def trace_facts(traceparent: object) -> dict[str, str | None]:
    """Return the trace's fields of a log line; empty without a trace."""
    trace_id = trace_id_of(traceparent) if isinstance(traceparent, str) else None
    return {"trace_id": trace_id} if trace_id else {}
