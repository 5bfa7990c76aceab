"""The provider of spans and their exporter, set up by OpenTelemetry's own variables, `OTEL_…`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from toolkit.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_OFF, _OTLP, _CONSOLE = "none", "otlp", "console"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"

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


@contextmanager
def span_ids(trace_id: str, span_id: str | None) -> Iterator[None]:
    """Give the next span these ids, in hex; without `span_id` only the trace's."""
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


def span_exporter() -> SpanExporter:
    """Return the exporter that the environment names.

    Raises:
        SettingsError: the exporter or its protocol is unknown, or its endpoint is no address.
    """
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
