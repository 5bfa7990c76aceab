"""A real OTLP endpoint over HTTP: it receives the services' spans, and keeps them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True, slots=True)
class Span:
    """A received span; ids are in hex, `parent` is empty for a root."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    begin: int
    end: int
    facts: dict[str, Any]
    errors: list[dict[str, Any]]
    links: list[str]

    @property
    def operation(self) -> str:
        """The step, or what else was done: the span's name without the destination."""
        return str(self.facts.get("messaging.operation.name", self.name))


@dataclass(slots=True)
class Collector:
    """The spans received so far."""

    port: int = 0
    spans: list[Span] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a process exports its spans here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def of_saga(self, saga_id: str) -> list[Span]:
        """Return the spans of one saga, in the order of their beginning."""
        return sorted((each for each in self.spans if each.facts.get("saga.id") == saga_id), key=lambda s: s.begin)

    def take(self, body: bytes) -> None:
        """Keep the spans of a request."""
        for of_service in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = str(_facts(of_service.resource.attributes)["service.name"])
            for scope in of_service.scope_spans:
                self.spans.extend(_span(service, each) for each in scope.spans)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listen, on a port of its own, for as long as the block lasts."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            collector.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.port = server.server_port
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    serving.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def _span(service: str, span: Any) -> Span:
    return Span(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        begin=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        facts=_facts(span.attributes),
        errors=[_facts(event.attributes) for event in span.events],
        links=[link.span_id.hex() for link in span.links],
    )


def _facts(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
