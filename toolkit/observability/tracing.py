"""Traces: one for each saga, over all services, switched on by `OTEL_…` only; otherwise OpenTelemetry is not imported.

A span begins with an attempt and ends after the commit: after a rollback it never ends, and so is never exported. An
emitted event carries the step's span through the outbox, and so do its retries, nudges and replays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from toolkit.declaration.events import Event, routing_key
from toolkit.extras import require
from toolkit.ids import derived_id, derived_trace
from toolkit.observability.broker_attributes import Broker, destination
from toolkit.observability.trace_contexts import remote_context
from toolkit.observability.trace_export import is_wanted, provider_for, span_exporter, span_ids

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import SpanContext

    from toolkit.messaging.envelope import Envelope, Message, WireMessage

#: The version of OpenTelemetry's semantic conventions that the spans keep.
_CONVENTIONS = "https://opentelemetry.io/schemas/1.44.0"


def tracing_for(service: str, broker: Broker) -> Tracing | None:
    """Return the tracing of a service or a client; None when the environment does not switch it on.

    Raises:
        SettingsError: the environment names an unknown exporter or protocol.
        MissingExtraError: OpenTelemetry is not installed.
    """
    if not is_wanted():
        return None
    require("otel", "tracing, which OTEL_… switches on,")
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = provider_for(service)
    provider.add_span_processor(BatchSpanProcessor(span_exporter()))
    return Tracing(provider, broker)


class Span:
    """A span that is exported by `end`; one that never ends is never exported."""

    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """The header of messages that this span causes."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def current(self) -> AbstractContextManager[Any]:
        """Make spans that begin meanwhile children of this one."""
        from opentelemetry.trace import use_span

        return use_span(self._span, end_on_exit=False, record_exception=False, set_status_on_exception=False)

    def link(self, traceparent: str | None) -> None:
        """Link the span to another cause than its parent."""
        if (context := remote_context(traceparent)) is not None:
            self._span.add_link(context)

    def end(
        self, *, at: int, facts: Mapping[str, str | int | None] | None = None, error: tuple[str, str] | None = None
    ) -> None:
        """Export the span, with its end in nanoseconds, its attributes, and an error's class and text if any."""
        self._span.set_attributes({name: fact for name, fact in (facts or {}).items() if fact is not None})
        if error is not None:
            from opentelemetry.trace import StatusCode

            kind, text = error
            self._span.add_event("exception", {"exception.type": kind, "exception.message": text}, timestamp=at)
            self._span.set_attribute("error.type", kind)
            self._span.set_status(StatusCode.ERROR, f"{kind}: {text}")
        self._span.end(end_time=at)


class Tracing:
    """Makes the spans of one service or client."""

    def __init__(self, provider: TracerProvider, broker: Broker) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context

        self._trace, self._nothing = trace, Context()
        self.broker = broker
        self.provider = provider
        self._tracer = provider.get_tracer("saga-toolkit", schema_url=_CONVENTIONS)

    def root_of(self, saga_type: str, saga_id: str) -> str:
        """Return the traceparent of a saga's root span, for a message without one."""
        from opentelemetry.sdk.trace.sampling import Decision

        trace_id, span_id = derived_trace(saga_type, saga_id)
        sampled = self.provider.sampler.should_sample(None, int(trace_id, 16), _root_name(saga_type))
        return f"00-{trace_id}-{span_id}-{int(sampled.decision is Decision.RECORD_AND_SAMPLE):02x}"

    def begin(self, name: str, message: Message, *, queue: str) -> Span:
        """Begin the span of a step's attempt that a message causes; `name` is the step's or the compensation's."""
        cause, key = message.envelope, message.routing_key
        place = destination(message.exchange, key, queue)
        attributes = self.broker.attributes(name=name, kind="process", destination=place, routing_key=key)
        return Span(
            self._tracer.start_span(
                f"{name} {place}",
                context=self._context(cause.traceparent),
                kind=self._trace.SpanKind.CONSUMER,
                attributes=attributes
                | _saga(cause.saga_type, cause.saga_id, cause.event_type)
                | _message(cause.event_id, cause.saga_id, len(message.body)),
            )
        )

    def export_root(self, cause: Envelope) -> None:
        """Export the root span of a saga whose starting event came without a trace."""
        trace_id, span_id = derived_trace(cause.saga_type, cause.saga_id)
        if cause.traceparent is None or cause.traceparent[3:52] != f"{trace_id}-{span_id}":
            return
        at = int(cause.occurred_at.timestamp() * 1e9)
        attributes = _saga(cause.saga_type, cause.saga_id, cause.event_type)
        with span_ids(trace_id, span_id):
            span = self._tracer.start_span(
                _root_name(cause.saga_type), context=self._nothing, start_time=at, attributes=attributes
            )
        span.end(end_time=at)

    def begin_saga(self, saga_type: str, saga_id: str, event: Event) -> Span:
        """Begin the trace of a saga that this process starts by sending this event."""
        trace_id, _ = derived_trace(saga_type, saga_id)
        key, event_type = routing_key(type(event)), type(event).__name__
        place = destination(self.broker.exchange, key)
        attributes = self.broker.attributes(name="trigger", kind="send", destination=place, routing_key=key)
        with span_ids(trace_id, None):
            return Span(
                self._tracer.start_span(
                    f"trigger {place}",
                    context=self._nothing,
                    kind=self._trace.SpanKind.PRODUCER,
                    attributes=attributes
                    | _saga(saga_type, saga_id, event_type)
                    | _message(derived_id(saga_type, saga_id, event_type), saga_id),
                )
            )

    def published(self, message: WireMessage, *, queue: str | None, since: int) -> None:
        """Export the span of a confirmed message; `since` is the time of sending, in nanoseconds.

        `queue`: the service's own, for a message to itself, which the exchange of the same name leads to.
        """
        traceparent = message.headers.get("traceparent")
        if (cause := remote_context(traceparent)) is None:  # it is about many sagas at once, or about none
            return
        place = destination(queue or self.broker.exchange, message.routing_key)
        attributes = self.broker.attributes(
            name="publish", kind="send", destination=place, routing_key=message.routing_key
        )
        self._tracer.start_span(
            f"publish {place}",
            context=self._below(cause),
            kind=self._trace.SpanKind.CLIENT,  # the step's span is the message's creation, not this one
            start_time=since,
            links=[self._trace.Link(cause)],
            attributes=attributes
            | _saga(message.headers.get("saga-type"), message.correlation_id, message.type)
            | _message(message.message_id, message.correlation_id, len(message.body)),
        ).end()

    def register_globally(self) -> None:
        """Register this provider as OpenTelemetry's global one, unless one is set: steps' libraries use it then."""
        self._trace.set_tracer_provider(self.provider)

    def shut_down(self, within: float) -> None:
        """Export the remaining spans, for so many seconds at most; the rest is dropped."""
        # The library's own time limits have no effect during an export.
        ending = threading.Thread(target=self.provider.shutdown, daemon=True)
        ending.start()
        ending.join(within)

    def _context(self, traceparent: str | None) -> Context:
        """Return the context of a message's traceparent."""
        context = remote_context(traceparent)
        return self._nothing if context is None else self._below(context)

    def _below(self, parent: SpanContext) -> Context:
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(parent), self._nothing)


def now() -> int:
    """Return the time in nanoseconds, the unit of spans."""
    return time.time_ns()


def _root_name(saga_type: str) -> str:
    return f"saga {saga_type}"


def _saga(saga_type: str | None, saga_id: str | None, event_type: str | None) -> dict[str, str | int]:
    facts = {"saga.id": saga_id, "saga.type": saga_type, "saga.event": event_type}
    return {name: fact for name, fact in facts.items() if fact is not None}


def _message(message_id: str | None, saga_id: str | None, size: int | None = None) -> dict[str, str | int]:
    facts = {
        "messaging.message.id": message_id,
        "messaging.message.conversation_id": saga_id,
        "messaging.message.body.size": size,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}
