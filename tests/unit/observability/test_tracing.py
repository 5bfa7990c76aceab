"""One trace for each saga: committed attempts are spans under one trace id, each below its cause."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of, wire
from tests.example_sagas.loan_rows import dead_letters_of
from tests.example_sagas.loans import NOON, BookWanted, CardRefused, Clerk, library, loan_saga
from toolkit import Event, Participant, Refusal, RetryPolicy, Saga, SagaId, Sensitive, Service, Settings
from toolkit.clock import SystemClock
from toolkit.declaration.events import AbortRequested
from toolkit.ids import derived_trace, trace_id_of
from toolkit.messaging.decoding import Decoder
from toolkit.messaging.envelope import Message
from toolkit.observability.broker_attributes import Broker
from toolkit.observability.trace_export import provider_for
from toolkit.observability.tracing import Tracing
from toolkit.persistence.database import Database
from toolkit.runtime.watchdog import Watchdog
from toolkit.testing import ManualClock

WANTED = BookWanted(loan_id="loan-1")


FOREIGN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def no_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(spans: InMemorySpanExporter) -> Iterator[Tracing]:
    provider = provider_for("library")
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield Tracing(provider, Broker())
    provider.shutdown()


@pytest.fixture
def branch(database: Database, clerk: Clerk, tracing: Tracing) -> Branch:
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=ManualClock(NOON), tracing=tracing)


def received(branch: Branch, tracing: Tracing, event: Event, **facts: str) -> Message:
    """Return an event as the service reads it from the wire."""
    service = branch.executor.service
    decoder = Decoder(service.consumed(), service.sagas, max_body=100_000, trace=tracing.root_of)
    return decoder.read(wire(event, at=branch.clock.now(), **facts), branch.clock)


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """Return the spans of a step, of an event's publishing, or of a saga's root."""
    return [each for each in spans.get_finished_spans() if each.name.partition(" ")[0] == name or each.name == name]


def hex_of(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


async def test_a_step_is_its_events_parent_span(branch: Branch, tracing: Tracing, spans) -> None:
    await branch.executor.execute([received(branch, tracing, WANTED, traceparent=FOREIGN)])
    await branch.relay.drain()

    (step,) = named(spans, "lend_book")
    (published,) = named(spans, "publish")
    (message,) = branch.publisher.taken
    assert step.kind is SpanKind.CONSUMER
    assert f"{step.parent.span_id:016x}" == "b7ad6b7169203331"
    assert {"saga.id": "loan-1", "saga.type": "loan", "saga.step": "lend_book", "saga.attempt": 1}.items() <= dict(
        step.attributes
    ).items()
    assert step.attributes["saga.outcome"] == "completed"
    assert message.headers["traceparent"] == "00-{}-{}-01".format(*hex_of(step))
    assert published.kind is SpanKind.CLIENT
    assert (published.parent.span_id, hex_of(published)[0]) == (step.context.span_id, hex_of(step)[0])


async def test_an_untraced_saga_gets_one_root_span(branch, tracing, spans) -> None:
    trace_id, root_id = derived_trace("loan", "loan-1")

    await branch.executor.execute([received(branch, tracing, WANTED)])
    await branch.executor.execute([received(branch, tracing, WANTED)])  # a duplicate

    (root,) = named(spans, "saga loan")
    (step,) = named(spans, "lend_book")
    assert hex_of(root) == (trace_id, root_id)
    assert root.parent is None
    assert step.parent.span_id == root.context.span_id


async def test_an_untraced_abort_joins_its_sagas_trace(branch, tracing, spans) -> None:
    abort = AbortRequested(saga_type="loan", saga_id="loan-1", reason="closed")

    await branch.executor.execute([received(branch, tracing, abort, saga_id="loan-1")])

    (fenced,) = named(spans, "lend_book")
    assert hex_of(fenced)[0] == derived_trace("loan", "loan-1")[0]
    assert fenced.attributes["saga.outcome"] == "fenced"


async def test_each_attempt_is_a_span_with_its_error(branch, tracing, spans, clerk: Clerk) -> None:
    async def fail(*_) -> None:
        raise RuntimeError("the shelf is gone")

    clerk.will("lend_book", fail)
    message = received(branch, tracing, WANTED)

    await branch.executor.execute([message])
    await branch.executor.execute([message])

    first, second = named(spans, "lend_book")
    assert first.attributes["saga.outcome"] == "retrying"
    assert first.status.status_code is StatusCode.ERROR
    (error,) = first.events
    assert dict(error.attributes) == {"exception.type": "RuntimeError", "exception.message": "the shelf is gone"}
    assert (second.attributes["saga.attempt"], second.attributes["saga.outcome"]) == (2, "completed")
    assert first.parent == second.parent


async def test_rolled_back_attempts_export_no_span(branch, tracing, spans, clerk: Clerk) -> None:
    async def fail(*_) -> None:
        raise RuntimeError("the shelf is gone")

    clerk.will("lend_book", *[fail] * 6)
    batch = [received(branch, tracing, BookWanted(loan_id=f"loan-{number}")) for number in range(3)]
    await branch.executor.execute(batch)  # the optimistic batch is rolled back, and each message runs again

    assert len(clerk.calls) > 3
    assert len(named(spans, "lend_book")) == 3

    clerk.actions.clear()
    with pytest.raises(Exception, match=r"FOREIGN KEY|foreign key"):
        await branch.executor.execute([received(branch, tracing, BookWanted(loan_id="loan-9", shelf=77))])

    assert len(named(spans, "lend_book")) == 3


async def test_a_compensation_is_a_span_below_its_cause(branch, tracing, spans) -> None:
    await branch.executor.execute([received(branch, tracing, WANTED, traceparent=FOREIGN)])
    refused = CardRefused(loan_id="loan-1", reason="expired")
    await branch.executor.execute([received(branch, tracing, refused, traceparent=FOREIGN)])

    (undone,) = named(spans, "take_back")
    assert undone.attributes["saga.outcome"] == "compensated"
    assert undone.attributes["saga.step"] == "lend_book"
    assert hex_of(undone)[0] == trace_id_of(FOREIGN)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_an_external_call_is_one_span(database: Database, clerk: Clerk, tracing: Tracing, spans) -> None:
    branch = Branch(library(clerk, external=True), database, resources={Clerk: clerk}, tracing=tracing)

    (claim,) = (await branch.executor.execute([received(branch, tracing, WANTED)]))[0]
    assert not named(spans, "lend_book")  # the claim is committed, and nothing has been called
    await branch.external_calls.run(claim)

    (step,) = named(spans, "lend_book")
    assert step.attributes["saga.outcome"] == "completed"


async def test_log_lines_carry_the_traces_id(branch: Branch, tracing: Tracing, capfd: pytest.CaptureFixture) -> None:
    await branch.executor.execute([received(branch, tracing, WANTED, traceparent=FOREIGN)])

    assert f"trace_id={trace_id_of(FOREIGN)}" in capfd.readouterr().out


async def test_retries_and_dead_letters_stay_in_the_trace(branch, tracing, clerk: Clerk) -> None:
    async def fail(*_) -> None:
        raise RuntimeError("the shelf is gone")

    await branch.executor.execute([received(branch, tracing, WANTED, traceparent=FOREIGN)])
    clerk.will("take_back", fail, fail)
    for _ in range(2):
        refused = CardRefused(loan_id="loan-1", reason="expired")
        await branch.executor.execute([received(branch, tracing, refused, traceparent=FOREIGN)])

    (dead_letter,) = await dead_letters_of(branch.database)
    assert dead_letter.headers["traceparent"] == FOREIGN


async def test_a_traceparent_is_passed_on_without_otel(database: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk), database, resources={Clerk: clerk}, clock=ManualClock(NOON))

    await branch.executor.execute([message_of(WANTED, at=NOON, traceparent=FOREIGN)])
    await branch.relay.drain()

    (message,) = branch.publisher.taken
    assert message.headers["traceparent"] == FOREIGN


def test_a_garbled_traceparent_is_ignored(tracing: Tracing, clerk: Clerk):
    service = library(clerk)
    decoder = Decoder(service.consumed(), [loan_saga], max_body=1000, trace=tracing.root_of)

    read = decoder.read(wire(WANTED, traceparent="00-hello-world-01"), SystemClock())

    assert trace_id_of(read.envelope.traceparent) == derived_trace("loan", "loan-1")[0]


class PaintWanted(Event, owner="reader"):
    loan_id: SagaId
    colour: Annotated[str, Sensitive]


class Painted(Event, owner="painter", optional=True):
    loan_id: SagaId


class PaintRefused(Refusal, owner="painter", optional=True):
    loan_id: SagaId


def painter() -> Service:
    """Return a service whose errors and refusals contain a sensitive value."""
    paint = Saga(
        name="paint", id_field="loan_id", starts_with=PaintWanted, completes_with=Painted, fails_with=PaintRefused
    )
    participant = Participant("painter", saga=paint, retry=RetryPolicy(attempts=2, first_delay=timedelta(0)))

    @participant.step()
    async def paint_book(event: PaintWanted) -> Painted | PaintRefused:
        if event.loan_id == "loan-2":
            return PaintRefused(loan_id=event.loan_id, reason=f"no {event.colour} left")
        raise RuntimeError(f"the {event.colour} is dry")

    return Service(name="painter", participants=[participant])


async def test_sensitive_values_are_redacted_in_spans(database: Database, tracing: Tracing, spans) -> None:
    branch = Branch(painter(), database, resources={}, clock=ManualClock(NOON), tracing=tracing)

    for loan_id in ("loan-1", "loan-2"):
        event = PaintWanted(loan_id=loan_id, colour="vermilion")
        await branch.executor.execute([received(branch, tracing, event, saga_type="paint")])

    failed, refused = named(spans, "paint_book")
    (error,) = failed.events
    assert error.attributes["exception.message"] == "the *** is dry"
    assert refused.attributes["saga.reason"] == "no *** left"
    assert "vermilion" not in "".join(span.to_json() for span in spans.get_finished_spans())


async def test_nudges_and_aborts_stay_in_the_trace(branch: Branch, tracing: Tracing) -> None:
    await branch.executor.execute([received(branch, tracing, WANTED, traceparent=FOREIGN)])
    await branch.relay.drain()
    branch.clock.advance(timedelta(hours=2))
    settings = Settings(overdue_after=timedelta(minutes=1), abort_after=timedelta(hours=1))
    service = branch.executor.service
    watch = Watchdog(service, settings, database=branch.database, relay=branch.relay, clock=branch.clock)

    for _ in range(2):
        await watch.sweep()
        branch.clock.advance(timedelta(minutes=2))
    await branch.relay.drain()

    first, *again = branch.publisher.taken
    assert {message.type for message in again} == {"BookLent", "AbortRequested"}
    assert {message.headers["traceparent"] for message in again} == {first.headers["traceparent"]}
