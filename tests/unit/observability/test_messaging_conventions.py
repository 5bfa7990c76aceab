"""Spans are named, and say broker and destination, as OpenTelemetry's conventions for messaging and RabbitMQ ask."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv import attributes as stable
from opentelemetry.semconv._incubating import attributes as in_development
from opentelemetry.trace import SpanKind

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.loans import NOON, BookWanted, CardRefused, Clerk, library
from toolkit import Settings
from toolkit.messaging.envelope import Message
from toolkit.observability.broker_attributes import Broker, destination
from toolkit.observability.trace_export import provider_for
from toolkit.observability.tracing import Tracing
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

FOREIGN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
QUEUE = "saga.library"
WANTED = BookWanted(loan_id="loan-1")
BROKER = Broker("rabbitmq", "saga", "broker.example", 5671)
ON_BROKER = {"messaging.system": "rabbitmq", "server.address": "broker.example", "server.port": 5671}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    return InMemorySpanExporter()


@pytest.fixture
def tracing(spans: InMemorySpanExporter) -> Iterator[Tracing]:
    provider = provider_for("library")
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield Tracing(provider, BROKER)
    provider.shutdown()


@pytest.fixture
def branch(database: Database, clerk: Clerk, tracing: Tracing) -> Branch:
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=ManualClock(NOON), tracing=tracing)


def received(event: BookWanted | CardRefused, *, exchange: str = "saga") -> Message:
    """Return an event as it comes through an exchange."""
    return replace(message_of(event, at=NOON, traceparent=FOREIGN), exchange=exchange)


def named(spans: InMemorySpanExporter, operation: str) -> ReadableSpan:
    (span,) = [s for s in spans.get_finished_spans() if s.attributes["messaging.operation.name"] == operation]
    return span


async def test_a_steps_span_names_exchange_key_and_queue(branch: Branch, spans: InMemorySpanExporter) -> None:
    message = received(WANTED)
    await branch.executor.execute([message])

    step = named(spans, "lend_book")
    place = f"saga:reader.BookWanted:{QUEUE}"
    assert (step.name, step.kind) == (f"lend_book {place}", SpanKind.CONSUMER)
    assert step.attributes.items() >= (ON_BROKER | {
        "messaging.operation.type": "process",
        "messaging.destination.name": place,
        "messaging.rabbitmq.destination.routing_key": "reader.BookWanted",
        "messaging.message.id": message.envelope.event_id,
        "messaging.message.conversation_id": "loan-1",
        "messaging.message.body.size": len(message.body),
    }).items()  # fmt: skip
    assert "error.type" not in step.attributes


async def test_a_confirmed_messages_span_links_to_its_creation(branch: Branch, spans: InMemorySpanExporter) -> None:
    await branch.executor.execute([received(WANTED)])
    await branch.relay.drain()

    step, sent = named(spans, "lend_book"), named(spans, "publish")
    (message,) = branch.publisher.taken
    assert (sent.name, sent.kind) == ("publish saga:library.BookLent", SpanKind.CLIENT)
    assert [link.context.span_id for link in sent.links] == [step.context.span_id]
    assert sent.attributes.items() >= (ON_BROKER | {
        "messaging.operation.type": "send",
        "messaging.destination.name": "saga:library.BookLent",
        "messaging.rabbitmq.destination.routing_key": "library.BookLent",
        "messaging.message.id": message.message_id,
    }).items()  # fmt: skip


def test_a_started_sagas_span_is_its_messages_creation(tracing: Tracing, spans: InMemorySpanExporter) -> None:
    tracing.begin_saga("loan", "loan-1", WANTED).end(at=1)

    span = named(spans, "trigger")
    assert (span.name, span.kind) == ("trigger saga:reader.BookWanted", SpanKind.PRODUCER)
    assert span.attributes["messaging.operation.type"] == "send"
    assert span.attributes["messaging.destination.name"] == "saga:reader.BookWanted"


async def test_a_failed_attempt_has_its_errors_class(branch: Branch, spans: InMemorySpanExporter, clerk) -> None:
    async def fail(*_) -> None:
        raise UnwantedBookError("too heavy")

    clerk.will("lend_book", fail)
    await branch.executor.execute([received(WANTED)])

    step = named(spans, "lend_book")
    assert step.attributes["error.type"] == f"{__name__}.UnwantedBookError"
    (event,) = step.events
    assert event.attributes["exception.type"] == step.attributes["error.type"]


class UnwantedBookError(Exception):
    """What the library's clerk raises."""


async def test_attribute_names_are_those_of_the_conventions(branch: Branch, spans, tracing, clerk) -> None:
    async def fail(*_) -> None:
        raise RuntimeError("the shelf is gone")

    clerk.will("lend_book", fail)
    await branch.executor.execute([received(WANTED)])
    await branch.executor.execute([received(WANTED)])
    await branch.relay.drain()
    tracing.begin_saga("loan", "loan-2", WANTED).end(at=1)

    used = {name for span in spans.get_finished_spans() for name in span.attributes if not name.startswith("saga.")}
    assert len(used) == 11
    assert used <= valid_names()
    assert {span.instrumentation_scope.schema_url for span in spans.get_finished_spans()} == {
        "https://opentelemetry.io/schemas/1.44.0"
    }


def valid_names() -> set[str]:
    """Return the attributes that OpenTelemetry's own package declares, without deprecated ones."""
    declared = re.compile(r'^[A-Z_]+: Final = "([a-z_.]+)"\n(?:"""\n(.*?)"""\n)?', re.MULTILINE | re.DOTALL)
    folders = [Path(each.__path__[0]) for each in (stable, in_development)]
    files = [file for folder in folders for file in folder.glob("*_attributes.py")]
    found = [match for file in files for match in declared.finditer(file.read_text())]
    return {name for name, text in (match.groups("") for match in found) if not text.startswith("Deprecated")}


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("saga", "order.OrderCreated"), "saga:order.OrderCreated"),
        (("saga", "order.OrderCreated", "saga.payment"), "saga:order.OrderCreated:saga.payment"),
        (("", "order.OrderCreated", "saga.payment"), "order.OrderCreated:saga.payment"),
        ((None, "order.OrderCreated"), "order.OrderCreated"),
        (("", "saga.payment", "saga.payment"), "saga.payment"),
    ],
)
def test_empty_and_repeated_parts_are_left_out(parts: tuple[str, ...], name: str) -> None:
    assert destination(*parts) == name


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("amqps://payment:kept-apart-7@broker.example", Broker("rabbitmq", "saga", "broker.example", 5671)),
        ("amqp://guest:guest@127.0.0.1:5673/shop", Broker("rabbitmq", "saga", "127.0.0.1", 5673)),
        ("embedded", Broker("embedded", "", None, None)),
    ],
)
def test_the_broker_is_that_of_the_settings(url: str, broker: Broker) -> None:
    assert Broker.of(Settings(broker_url=url, exchange="saga")) == broker
