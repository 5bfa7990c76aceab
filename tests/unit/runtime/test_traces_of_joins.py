"""The span of a join is below its last event's, and has links to the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.example_sagas.travel import Script
from tests.unit.runtime.holidays import CAR, FLIGHT, ROOM, booking, payments, taken
from toolkit.observability.broker_attributes import Broker
from toolkit.observability.trace_export import provider_for
from toolkit.observability.tracing import Tracing
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

TRACE = "0af7651916cd43dd8448eb211c80319c"
CAUSES = {event: f"00-{TRACE}-{number:016x}-01" for number, event in enumerate((ROOM, FLIGHT, CAR), 1)}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    return InMemorySpanExporter()


@pytest.fixture
def tracing(spans: InMemorySpanExporter) -> Iterator[Tracing]:
    provider = provider_for("payment")
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield Tracing(provider, Broker())
    provider.shutdown()


@pytest.mark.parametrize("is_external", [False, True])
async def test_a_join_has_links_to_its_other_causes(
    database: Database, tracing: Tracing, spans: InMemorySpanExporter, is_external: bool
) -> None:
    clock = ManualClock()
    payment = await payments(database, Script(), clock, is_external=is_external, tracing=tracing)

    for event, traceparent in CAUSES.items():
        await taken(payment, booking(event, clock, traceparent=traceparent))

    (span,) = [each for each in spans.get_finished_spans() if each.name.startswith("take_payment ")]
    assert span.parent is not None
    assert span.parent.span_id == 3
    assert [link.context.span_id for link in span.links] == [1, 2]
    assert {f"{link.context.trace_id:032x}" for link in span.links} == {TRACE}
