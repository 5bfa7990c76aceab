"""The request that aborts a saga, from outside the services."""

from __future__ import annotations

from datetime import datetime

from toolkit.ids import derived_trace
from toolkit.messaging.envelope import WireMessage, abort_request
from toolkit.protocol.log_entry import trace_of
from toolkit.protocol.timeline import Timeline


def abort_message(timeline: Timeline, reason: str, *, now: datetime) -> WireMessage:
    """Return the message that asks all services to abort this saga, in the saga's trace where that is known."""
    return abort_request(str(timeline.saga_type), timeline.saga_id, reason, now=now, traceparent=_traceparent(timeline))


def _traceparent(timeline: Timeline) -> str | None:
    trace_id = next(filter(None, map(trace_of, timeline.entries)), None)
    _, root = derived_trace(str(timeline.saga_type), timeline.saga_id)
    return f"00-{trace_id}-{root}-01" if trace_id else None
