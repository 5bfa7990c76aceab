"""The context of a span in another process, as a message's traceparent names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.ids import trace_id_of

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext


def remote_context(traceparent: str | None) -> SpanContext | None:
    """Return the context of the span that a traceparent names; None where it names none."""
    from opentelemetry.trace import SpanContext, TraceFlags

    trace_id = trace_id_of(traceparent)
    if traceparent is None or trace_id is None:
        return None
    flags = TraceFlags(int(traceparent[53:55], 16))
    return SpanContext(int(trace_id, 16), int(traceparent[36:52], 16), is_remote=True, trace_flags=flags)
