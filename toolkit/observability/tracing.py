"""Traces: one for each saga, over all services, switched on by `OTEL_…` only; otherwise OpenTelemetry is not imported.

A span begins with an attempt and ends after the commit: after a rollback it never ends, and so is never exported. An
emitted event carries the step's span through the outbox, and so do its retries, nudges and replays.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from toolkit.errors import SettingsError
from toolkit.ids import derived_trace, trace_id_of
from toolkit.observability.trace_contexts import remote_context

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan

    from toolkit.messaging.envelope import Envelope, WireMessage

_OFF, _OTLP, _CONSOLE = "none", "otlp", "console"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
RABBITMQ = "rabbitmq"

#: The ids of the next span; random without a value.
_NEXT_IDS: ContextVar[tuple[str, str | None] | None] = ContextVar("next_ids", default=None)


def is_wanted() -> bool:
    """Whether the environment names an exporter or an endpoint."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return _exporter() != _OFF


def _exporter() -> str:
    named = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return named or (_OTLP if any(os.environ.get(name) for name in _ENDPOINTS) else _OFF)


def tracing_for(service: str, *, system: str = RABBITMQ) -> Tracing | None:
    """Return the tracing of a service; None when the environment does not switch it on.

    Raises:
        SettingsError: the environment names an unknown exporter or protocol.
    """
    if not is_wanted():
        return None
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = provider_for(service)
    provider.add_span_processor(BatchSpanProcessor(_span_exporter()))
    return Tracing(provider, system=system)


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
        """Export the span, with its end in nanoseconds, its attributes, and an error's type and text if any."""
        self._span.set_attributes({name: fact for name, fact in (facts or {}).items() if fact is not None})
        if error is not None:
            from opentelemetry.trace import StatusCode

            kind, text = error
            self._span.add_event("exception", {"exception.type": kind, "exception.message": text}, timestamp=at)
            self._span.set_status(StatusCode.ERROR, f"{kind}: {text}")
        self._span.end(end_time=at)


class Tracing:
    """Makes the spans of one service."""

    def __init__(self, provider: TracerProvider, *, system: str = RABBITMQ) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context

        self._trace, self._nothing = trace, Context()
        self._system = system
        self.provider = provider
        self._tracer = provider.get_tracer("saga-toolkit")

    def root_of(self, saga_type: str, saga_id: str) -> str:
        """Return the traceparent of a saga's root span, for a message without one."""
        from opentelemetry.sdk.trace.sampling import Decision

        trace_id, span_id = derived_trace(saga_type, saga_id)
        sampled = self.provider.sampler.should_sample(None, int(trace_id, 16), _root_name(saga_type))
        return f"00-{trace_id}-{span_id}-{int(sampled.decision is Decision.RECORD_AND_SAMPLE):02x}"

    def begin(self, name: str, cause: Envelope, *, queue: str) -> Span:
        """Begin the span of a step's attempt that an event causes."""
        attributes = {
            "saga.id": cause.saga_id,
            "saga.type": cause.saga_type,
            "saga.event": cause.event_type,
            "messaging.system": self._system,
            "messaging.operation.type": "process",
            "messaging.operation.name": name,
            "messaging.destination.name": queue,
            "messaging.message.id": cause.event_id,
            "messaging.message.conversation_id": cause.saga_id,
        }
        return Span(
            self._tracer.start_span(
                name,
                context=self._context(cause.traceparent),
                kind=self._trace.SpanKind.CONSUMER,
                attributes=attributes,
            )
        )

    def export_root(self, cause: Envelope) -> None:
        """Export the root span of a saga whose starting event came without a trace."""
        trace_id, span_id = derived_trace(cause.saga_type, cause.saga_id)
        if cause.traceparent is None or cause.traceparent[3:52] != f"{trace_id}-{span_id}":
            return
        at = int(cause.occurred_at.timestamp() * 1e9)
        attributes = {"saga.id": cause.saga_id, "saga.type": cause.saga_type, "saga.event": cause.event_type}
        with _ids(trace_id, span_id):
            span = self._tracer.start_span(
                _root_name(cause.saga_type), context=self._nothing, start_time=at, attributes=attributes
            )
        span.end(end_time=at)

    def begin_saga(self, saga_type: str, saga_id: str, event_type: str) -> Span:
        """Begin the trace of a saga that this process starts."""
        trace_id, _ = derived_trace(saga_type, saga_id)
        attributes = {
            "saga.id": saga_id,
            "saga.type": saga_type,
            "saga.event": event_type,
            "messaging.system": self._system,
            "messaging.operation.type": "send",
            "messaging.operation.name": "trigger",
            "messaging.message.conversation_id": saga_id,
        }
        with _ids(trace_id, None):
            return Span(
                self._tracer.start_span(
                    f"trigger {event_type}",
                    context=self._nothing,
                    kind=self._trace.SpanKind.PRODUCER,
                    attributes=attributes,
                )
            )

    def published(self, message: WireMessage, *, destination: str | None, since: int) -> None:
        """Export the span of a confirmed message; `since` is the time of sending, in nanoseconds."""
        traceparent = message.headers.get("traceparent")
        if trace_id_of(traceparent) is None:  # it is about many sagas at once, or about none
            return
        facts = {
            "saga.id": message.correlation_id,
            "saga.type": message.headers.get("saga-type"),
            "saga.event": message.type,
            "messaging.system": self._system,
            "messaging.operation.type": "send",
            "messaging.operation.name": "publish",
            "messaging.destination.name": destination or message.routing_key,
            "messaging.message.id": message.message_id,
            "messaging.message.conversation_id": message.correlation_id,
            "messaging.message.body.size": len(message.body),
        }
        self._tracer.start_span(
            f"publish {message.type}",
            context=self._context(traceparent),
            kind=self._trace.SpanKind.PRODUCER,
            start_time=since,
            attributes={name: fact for name, fact in facts.items() if fact is not None},
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
        if (context := remote_context(traceparent)) is None:
            return self._nothing
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(context), self._nothing)


def now() -> int:
    """Return the time in nanoseconds, the unit of spans."""
    return time.time_ns()


def _root_name(saga_type: str) -> str:
    return f"saga {saga_type}"


@contextmanager
def _ids(trace_id: str, span_id: str | None) -> Iterator[None]:
    token = _NEXT_IDS.set((trace_id, span_id))
    try:
        yield
    finally:
        _NEXT_IDS.reset(token)


def provider_for(service: str) -> TracerProvider:
    """Return a service's provider of spans, without an exporter; `OTEL_…` sets sampling and limits."""
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Random ids, unless `_NEXT_IDS` names them."""

        def generate_trace_id(self) -> int:
            wanted = _NEXT_IDS.get()
            return int(wanted[0], 16) if wanted else super().generate_trace_id()

        def generate_span_id(self) -> int:
            wanted = _NEXT_IDS.get()
            return int(wanted[1], 16) if wanted and wanted[1] else super().generate_span_id()

    named = OTELResourceDetector().detect().attributes.get(SERVICE_NAME)
    # The app flushes when it stops, within a time limit; the library's own flush has none.
    return TracerProvider(
        resource=Resource.create({SERVICE_NAME: named or service}), id_generator=Ids(), shutdown_on_exit=False
    )


def _span_exporter() -> SpanExporter:
    exporter = _exporter()
    if exporter == _CONSOLE:
        import sys

        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)  # standard output is for data
    if exporter != _OTLP:
        raise SettingsError(f"OTEL_TRACES_EXPORTER={exporter!r} is not allowed: give otlp, console or none")
    for name in _ENDPOINTS:
        if (url := os.environ.get(name)) and not _is_address(url):
            raise SettingsError(
                f"{name} is not allowed: give the address of a receiver of spans, such as http://127.0.0.1:4318"
            )
    for name in _PROTOCOLS:
        if (wanted := os.environ.get(name, _PROTOCOL)) != _PROTOCOL:
            raise SettingsError(f"{name}={wanted!r} is not allowed: only {_PROTOCOL} is supported")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url.strip())
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, for example
        return False
