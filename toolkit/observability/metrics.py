"""Metrics for Prometheus: counters rise at the commit, so that a rollback counts nothing.

The labels are bounded: services, saga types, steps and states are those of the declarations, never data. Gauges are
read from the tables at each scrape and not kept: a figure from before an outage would look current. Replicas share
their tables, so each reports the same gauges.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from prometheus_client import Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaState
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.service import Service
from toolkit.observability import shared_metrics
from toolkit.persistence import dead_letter_queries, outbox, overdue_steps
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import is_outage
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import Note, StepState


class Hit(StrEnum):
    """Why the fence kept an event from running its step."""

    DUPLICATE = "duplicate"
    """The step has processed this event before."""
    LATE = "late"
    """Another event has moved the step on; this one changes nothing."""
    COMPENSATION_FIRST = "compensation_first"
    """The compensation came before the step, which never takes effect."""
    ABORT = "abort"
    """An abort came before the step, which never takes effect."""
    DEFERRED = "deferred"
    """The step's outcome is still unknown; the event is deferred."""


#: The label of an undeclared saga type or step: one of an older release that is still in a table.
UNDECLARED = "undeclared"

#: How long a scrape waits for the gauges, in seconds; counters are in memory.
_SNAPSHOT = 2

_SAGA = ("service", "saga_type")
_STEP = (*_SAGA, "step")
#: Seconds: from a saga in one process to one that waited for people.
_SAGA_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600)
#: Seconds: from a row in SQLite to an outside call that was cut off.
_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

started = Counter("saga_started_total", "Sagas whose starting event this service consumed.", _SAGA)
completed = Counter("saga_completed_total", "Sagas that this service completed.", _SAGA)
failed = Counter("saga_failed_total", "Sagas that this service ended with every completed step undone.", _SAGA)
compensating = Counter("saga_compensating_total", "Sagas whose compensation path this service began.", _SAGA)
durations = Histogram(
    "saga_duration_seconds",
    "From a saga's starting event to its end, measured by the service that ended it.",
    (*_SAGA, "outcome"),
    buckets=_SAGA_SECONDS,
)
steps = Counter(
    "saga_step_entries_total",
    "Entries of the saga log: the states that steps moved to, and their notes (retrying, dead_lettered, overdue …).",
    (*_STEP, "to_state"),
)
attempts = Histogram(
    "saga_step_duration_seconds",
    "Attempts of steps and compensations, each under its own name, external calls included.",
    _STEP,
    buckets=_STEP_SECONDS,
)
retries = Counter("saga_step_retries_total", "Attempts that failed and will be repeated.", _STEP)
refusals = Counter("saga_step_refusals_total", "Steps that refused.", _STEP)
fence_hits = Counter("saga_fence_hits_total", "Events that the fence kept from running a step.", (*_STEP, "kind"))
failed_compensations = Counter(
    "saga_compensations_failed_total", "Compensations that failed for good: their step is not undone.", _STEP
)
nudges = Counter("saga_nudges_total", "Overdue steps whose event was sent again.", _SAGA)
reminders = Counter("saga_reminders_total", "Reminders of questions that were still open.", _STEP)
aborts = Counter("saga_aborts_total", "Aborts that were requested for overdue steps.", _SAGA)
contradictions = Counter("saga_contradictions_total", "Steps whose state contradicts the end of their saga.", _STEP)
_dead_letters = Counter("saga_dead_letters_total", "Messages that became dead letters.", ("service",))
batches = Histogram(
    "saga_batch_size", "Messages that shared a transaction.", ("service",), buckets=(1, 2, 5, 10, 20, 50, 100, 200)
)
confirms = Counter("saga_relay_confirms_total", "Messages that the broker confirmed.", ("service",))
returns = Counter(
    "saga_relay_returns_total",
    "Messages that the broker returned: no queue is bound to an event that needs a consumer.",
    ("service",),
)
failures = Counter(
    "saga_relay_failures_total", "Messages that were sent and not confirmed; they are sent again.", ("service",)
)


class Meter:
    """Counts for one service; each label set is bound once, since binding costs more than counting."""

    def __init__(self, service: Service) -> None:
        self._service = service.name
        self._sagas = {saga.name for saga in service.sagas}
        self._coordinated = service.coordinated  # their steps' names are the plans'
        self._steps = {(step.saga.name, step.name) for step in service.steps}
        self._bound: dict[tuple[str, ...], Any] = {}
        self._batches = batches.labels(service.name)
        self._dead_letters = _dead_letters.labels(service.name)
        self._begin_at_zero(service)

    def entries(self, entries: Iterable[Entry]) -> None:
        """Count committed log entries."""
        alike = Tally(
            (each.saga_type, each.step, each.to_state, each.saga_state, each.from_state, each.emitted_id is not None)
            for each in entries
        )
        for (saga_type, name, to_state, saga_state, from_state, has_emitted), count in alike.items():
            step = self._step(saga_type, name)
            self._of(steps, *step, str(to_state)).inc(count)
            match to_state:
                # A coordinator's entry of an end that another service has emitted is no further end.
                case StepState.COMPLETED if saga_state is SagaState.COMPLETED and has_emitted:
                    self._of(completed, step[0]).inc(count)
                case StepState.COMPLETED if saga_state is SagaState.FAILED and has_emitted:
                    self._of(failed, step[0]).inc(count)
                case StepState.FAILED:
                    self._of(compensating, step[0]).inc(count)
                    self._of(refusals, *step).inc(count)
                case Note.RETRYING:
                    self._of(retries, *step).inc(count)
                case Note.DEAD_LETTERED if from_state in _UNDOABLE:
                    self._of(failed_compensations, *step).inc(count)
                case Note.NUDGED:
                    self._of(nudges, step[0]).inc(count)
                case Note.REMINDED:
                    self._of(reminders, *step).inc(count)
                case Note.ABORTED:
                    self._of(aborts, step[0]).inc(count)

    def started(self, saga_type: str) -> None:
        """Count a saga whose starting event was consumed."""
        self._of(started, self._saga(saga_type)).inc()

    def ended(self, saga_type: str, outcome: SagaState, seconds: float) -> None:
        """Record how long a saga took."""
        self._of(durations, self._saga(saga_type), outcome.lower()).observe(seconds)

    def attempt(self, handler: Step | Compensation, seconds: float) -> None:
        """Record how long an attempt took."""
        saga = handler.saga if isinstance(handler, Step) else handler.of.saga
        self._of(attempts, saga.name, handler.name).observe(seconds)

    def hit(self, step: Step, kind: Hit) -> None:
        """Count an event that the fence stopped."""
        self._of(fence_hits, step.saga.name, step.name, kind.value).inc()

    def contradiction(self, saga_type: str, step: str) -> None:
        """Count a step whose state contradicts its saga's end."""
        self._of(contradictions, *self._step(saga_type, step)).inc()

    def dead_letter(self, _: DeadLetter) -> None:
        """Count a dead letter."""
        self._dead_letters.inc()

    def batch(self, size: int) -> None:
        """Record how many messages shared a transaction."""
        self._batches.observe(size)

    def _begin_at_zero(self, service: Service) -> None:
        """Export all counters at 0: a counter that first appears at 1 shows Prometheus no rise."""
        for saga_type in self._sagas:
            for counter in (started, completed, failed, compensating, nudges, aborts):
                self._of(counter, saga_type)
        for step in service.steps:
            for counter in (retries, refusals, failed_compensations, contradictions):
                self._of(counter, step.saga.name, step.name)
            self._of(attempts, step.saga.name, step.name)
            for hit in Hit:
                self._of(fence_hits, step.saga.name, step.name, hit.value)
        for counter in (confirms, returns, failures):
            counter.labels(service.name)

    def _of(self, metric: Counter | Histogram, *labels: str) -> Any:
        key = (metric._name, *labels)
        if (bound := self._bound.get(key)) is None:
            bound = self._bound[key] = metric.labels(self._service, *labels)
        return bound

    def _saga(self, saga_type: str) -> str:
        return saga_type if saga_type in self._sagas else UNDECLARED

    def _step(self, saga_type: str, step: str) -> tuple[str, str]:
        is_known = (saga_type, step) in self._steps or saga_type in self._coordinated
        return (saga_type, step) if is_known else (self._saga(saga_type), UNDECLARED)


#: The states of a step whose compensation may fail.
_UNDOABLE = (StepState.COMPLETED, StepState.COMPENSATING, StepState.VOIDING)


async def page(service: Service, database: Database, readiness: Callable[[], Awaitable[Mapping[str, bool]]]) -> bytes:
    """Return the page that Prometheus scrapes: this process's counters, or all workers', and the service's gauges.

    Gauges from the tables are missing during a database outage.
    """
    sagas = [saga.name for saga in service.sagas]
    parts, waiting = await asyncio.gather(readiness(), _table_gauges(service.name, sagas, database))
    gauges = _Gauges([_readiness(service.name, parts), *waiting])
    return shared_metrics.counters() + generate_latest(gauges)


class _Gauges(Collector):
    def __init__(self, gauges: Sequence[GaugeMetricFamily]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._gauges


def _readiness(service: str, parts: Mapping[str, bool]) -> GaugeMetricFamily:
    text = "Whether the service reaches its broker and its database, and its relay works: 1 or 0."
    gauge = GaugeMetricFamily("saga_ready", text, labels=("service", "part"))
    for part, is_there in parts.items():
        gauge.add_metric((service, part), int(is_there))
    return gauge


async def _table_gauges(service: str, sagas: Collection[str], database: Database) -> list[GaugeMetricFamily]:
    try:
        async with asyncio.timeout(_SNAPSHOT), database.reading() as connection:
            return await _waiting(connection, service, sagas)
    except Exception as error:
        if not is_outage(error):
            raise
        return []


async def _waiting(connection: AsyncConnection, service: str, sagas: Collection[str]) -> list[GaugeMetricFamily]:
    def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=("service",))
        family.add_metric((service,), value)
        return family

    emitted_at = await outbox.oldest(connection)
    age = (datetime.now(UTC) - emitted_at).total_seconds() if emitted_at else 0
    dead = await dead_letter_queries.count(connection)
    return [
        gauge("saga_outbox_rows", "Rows of the outbox that are not confirmed yet.", await outbox.count(connection)),
        gauge("saga_outbox_oldest_seconds", "The age of the oldest unsent event, or 0.", max(age, 0)),
        gauge("saga_dead_letters_open", "Dead letters that wait for a person.", dead),
        gauge("saga_overdue_steps", "Overdue steps.", await overdue_steps.count(connection)),
        await _stuck(connection, service, sagas),
    ]


async def _stuck(connection: AsyncConnection, service: str, sagas: Collection[str]) -> GaugeMetricFamily:
    stuck = {(saga_type, state): 0 for saga_type in sagas for state in SagaState if not state.is_ended}
    for saga_type, state, count in await overdue_steps.sagas_by_state(connection):
        key = saga_type if saga_type in sagas else UNDECLARED, state
        stuck[key] = stuck.get(key, 0) + count
    text = "Overdue sagas, by the last state that this service saw."
    gauge = GaugeMetricFamily("saga_stuck", text, labels=("service", "saga_type", "state"))
    for (saga_type, state), count in stuck.items():
        gauge.add_metric((service, saga_type, state), count)
    return gauge
