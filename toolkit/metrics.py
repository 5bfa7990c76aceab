"""What Prometheus is told: counted when it is committed, so that a rollback counts nothing.

The labels are bounded: services, saga types, steps and states are those of the declarations, never anybody's data.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit import dead_letters, outbox, overdue
from toolkit.dead_letters import DeadLetter
from toolkit.events import SagaState
from toolkit.fence import StepState
from toolkit.saga_log import Entry

_SAGA = ("service", "saga_type")

started = Counter("saga_started_total", "Sagas whose starting event this service took up.", _SAGA)
completed = Counter("saga_completed_total", "Sagas that this service completed.", _SAGA)
failed = Counter("saga_failed_total", "Sagas that this service ended as failed, all undone.", _SAGA)
compensating = Counter("saga_compensating_total", "Sagas whose way back this service began, by a refusal.", _SAGA)
steps = Counter(
    "saga_step_entries_total",
    "Entries of the saga log: what steps moved to, and what was noted of them (retrying, dead_lettered, overdue …).",
    (*_SAGA, "step", "to_state"),
)
letters = Counter("saga_dead_letters_total", "Messages that became dead letters.", ("service",))
batches = Histogram(
    "saga_batch_size", "Messages that shared a transaction.", ("service",), buckets=(1, 2, 5, 10, 20, 50, 100, 200)
)

#: Read from the tables when somebody asks.
dead_letters_open = Gauge("saga_dead_letters_open", "Dead letters that wait for a person.", ("service",))
outbox_rows = Gauge("saga_outbox_rows", "Rows of the outbox that the broker has not confirmed yet.", ("service",))
overdue_steps = Gauge("saga_overdue_steps", "Steps whose saga should have ended long ago.", ("service",))


def count_entries(entries: Sequence[Entry]) -> None:
    """Count entries that were committed."""
    for entry in entries:
        steps.labels(entry.service, entry.saga_type, entry.step, entry.to_state).inc()
        if entry.to_state == StepState.FAILED:
            compensating.labels(entry.service, entry.saga_type).inc()
        elif entry.to_state == StepState.COMPLETED and entry.saga_state is SagaState.COMPLETED:
            completed.labels(entry.service, entry.saga_type).inc()
        elif entry.to_state == StepState.COMPLETED and entry.saga_state is SagaState.FAILED:
            failed.labels(entry.service, entry.saga_type).inc()


def count_letter(letter: DeadLetter) -> None:
    """Count a dead letter that was committed."""
    letters.labels(letter.service).inc()


def forget(service: str) -> None:
    """Tell nothing of a service's tables: a figure of before the outage would pass for one of now."""
    for gauge in (dead_letters_open, outbox_rows, overdue_steps):
        gauge.remove_by_labels({"service": service})


async def look(connection: AsyncConnection, service: str) -> None:
    """Read from a service's tables what is read when somebody asks."""
    dead_letters_open.labels(service).set(await dead_letters.count(connection))
    outbox_rows.labels(service).set(await outbox.count(connection))
    overdue_steps.labels(service).set(await overdue.count(connection))
