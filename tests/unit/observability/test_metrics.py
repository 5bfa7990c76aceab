"""Metrics count what was committed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.loans import (
    NOON,
    BookLent,
    BookWanted,
    CardRefused,
    Clerk,
    LoanRefused,
    LoanRegistered,
    library,
    loan_saga,
)
from toolkit import Participant, Service, Settings
from toolkit.declaration.events import AbortRequested, SagaState
from toolkit.errors import UnroutableError
from toolkit.observability.metrics import UNDECLARED, Meter
from toolkit.persistence.database import Database
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import Note
from toolkit.runtime.watchdog import Watchdog
from toolkit.testing import ManualClock

LOAN = {"service": "library", "saga_type": "loan"}


class Counted:
    """Counts since its creation."""

    def __init__(self, service: str = "library") -> None:
        self._service, self._before = service, self._all()

    def __call__(self, name: str, **labels: str) -> float:
        key = name, frozenset(({"service": self._service} | labels).items())
        return self._all().get(key, 0) - self._before.get(key, 0)

    def _all(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        samples = [sample for family in REGISTRY.collect() for sample in family.samples]
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


async def test_a_step_is_counted_by_its_state(branch: Branch) -> None:
    counted = Counted()

    await branch.take(BookWanted(loan_id="loan-1"), BookWanted(loan_id="loan-2"))
    await branch.take(CardRefused(loan_id="loan-2", reason="expired"))

    assert counted("saga_started_total", **LOAN) == 2
    assert counted("saga_step_entries_total", **LOAN, step="lend_book", to_state="completed") == 2
    assert counted("saga_step_entries_total", **LOAN, step="lend_book", to_state="compensated") == 1
    assert counted("saga_batch_size_count") == 2
    assert counted("saga_batch_size_sum") == 3


async def test_a_refusal_counts_as_compensating(branch: Branch, clerk: Clerk) -> None:
    async def refuse(event, _) -> LoanRefused:
        return LoanRefused(loan_id=event.loan_id, reason="lent already")

    clerk.will("lend_book", refuse)
    counted = Counted()

    await branch.take(BookWanted(loan_id="loan-1"))

    assert counted("saga_compensating_total", **LOAN) == 1
    assert counted("saga_started_total", **LOAN) == 1
    assert counted("saga_step_refusals_total", **LOAN, step="lend_book") == 1


async def test_the_ending_service_measures_the_sagas_duration(database: Database):
    desk = Branch(desk_service(), database, resources={}, clock=ManualClock(NOON + timedelta(seconds=42)))
    counted = Counted(service="desk")

    lent = message_of(BookLent(loan_id="loan-1"), at=NOON, started_at=NOON)
    foreign = message_of(BookLent(loan_id="loan-2"), at=NOON)
    await desk.executor.execute([lent, foreign])

    took = {"saga_type": "loan", "outcome": "completed"}
    assert counted("saga_completed_total", saga_type="loan") == 2
    assert counted("saga_duration_seconds_count", **took) == 1
    assert counted("saga_duration_seconds_sum", **took) == 42


async def test_events_pass_the_sagas_start_on(branch: Branch) -> None:
    wanted = message_of(BookWanted(loan_id="loan-1"), at=NOON, started_at=NOON)
    await branch.executor.execute([wanted])
    await branch.relay.drain()

    (sent,) = branch.publisher.taken

    assert sent.headers["started-at"] == NOON.isoformat()


async def test_attempts_are_timed_failed_ones_too(branch: Branch, clerk: Clerk) -> None:
    async def fail(*_) -> None:
        raise RuntimeError("the shelf is gone")

    clerk.will("lend_book", fail)
    counted = Counted()

    await branch.take(BookWanted(loan_id="loan-1"))
    await branch.take(BookWanted(loan_id="loan-1"))
    await branch.take(CardRefused(loan_id="loan-1", reason="expired"))

    assert counted("saga_step_duration_seconds_count", **LOAN, step="lend_book") == 2
    assert counted("saga_step_duration_seconds_count", **LOAN, step="take_back") == 1
    assert counted("saga_step_retries_total", **LOAN, step="lend_book") == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_an_external_call_is_timed_once(database: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk, external=True), database, resources={Clerk: clerk})
    counted = Counted()

    await branch.handle(BookWanted(loan_id="loan-1"))

    assert counted("saga_step_duration_seconds_count", **LOAN, step="lend_book") == 1


async def test_fence_hits_are_counted_by_kind(branch: Branch) -> None:
    counted = Counted()

    await branch.take(BookWanted(loan_id="loan-1"))
    await branch.take(BookWanted(loan_id="loan-1"))
    await branch.executor.execute([message_of(BookWanted(loan_id="loan-1"), at=branch.clock.now(), event_id="another")])
    await branch.take(CardRefused(loan_id="loan-2", reason="expired"))

    hits = LOAN | {"step": "lend_book"}
    assert counted("saga_fence_hits_total", **hits, kind="duplicate") == 1
    assert counted("saga_fence_hits_total", **hits, kind="late") == 1
    assert counted("saga_fence_hits_total", **hits, kind="compensation_first") == 1


async def test_an_abort_before_the_step_is_counted(branch: Branch) -> None:
    counted = Counted()
    abort = AbortRequested(saga_type="loan", saga_id="loan-1", reason="closed")

    await branch.executor.execute([message_of(abort, at=branch.clock.now(), saga_id="loan-1")])

    assert counted("saga_fence_hits_total", **LOAN, step="lend_book", kind="abort") == 1


async def test_relay_confirms_returns_and_failures_are_counted(branch: Branch) -> None:
    async def return_it(_) -> None:
        raise UnroutableError("no queue is bound")

    async def be_away(_) -> None:
        raise ConnectionError("the broker is away")

    branch.publisher.will(return_it, be_away)
    counted = Counted()

    for number in range(3):
        await branch.take(BookWanted(loan_id=f"loan-{number}"))
        await branch.relay.drain()

    assert counted("saga_relay_returns_total") == 1
    assert counted("saga_relay_failures_total") == 1
    assert counted("saga_relay_confirms_total") == 1


def test_undeclared_names_share_one_label(clerk: Clerk):
    meter, counted = Meter(library(clerk)), Counted()

    meter.entries([noted("voyage", "sail"), noted("loan", "burn_books")])

    assert counted("saga_nudges_total", saga_type=UNDECLARED) == 1
    assert counted("saga_nudges_total", **LOAN) == 1
    nudged = {"step": UNDECLARED, "to_state": "nudged"}
    assert counted("saga_step_entries_total", saga_type=UNDECLARED, **nudged) == 1
    assert counted("saga_step_entries_total", **LOAN, **nudged) == 1


def noted(saga_type: str, step: str) -> Entry:
    return Entry(
        service="library", saga_id="1", saga_type=saga_type, step=step, position=None, from_state=None,
        to_state=Note.NUDGED, saga_state=SagaState.PENDING, event_id=None, event_type=None, at=NOON,
    )  # fmt: skip


def desk_service() -> Service:
    """Return the service that ends a loan."""
    desk = Participant("desk", saga=loan_saga)

    @desk.step()
    async def register_loan(event: BookLent) -> LoanRegistered:
        return LoanRegistered(loan_id=event.loan_id)

    return Service(name="desk", participants=[desk])


async def test_a_rollback_counts_nothing(branch: Branch, clerk: Clerk) -> None:
    counted = Counted()

    with pytest.raises(Exception, match=r"FOREIGN KEY|foreign key"):
        await branch.take(BookWanted(loan_id="loan-1", shelf=77))  # fails at the commit

    assert counted("saga_started_total", **LOAN) == 0
    assert counted("saga_step_entries_total", **LOAN, step="lend_book", to_state="completed") == 0
    assert counted("saga_batch_size_count") == 0
    assert counted("saga_step_refusals_total", **LOAN, step="lend_book") == 0


async def test_a_failed_compensation_counts_as_dead_letter(branch: Branch, clerk: Clerk) -> None:
    async def fail(*_) -> None:
        raise RuntimeError("the shelf is gone")

    await branch.take(BookWanted(loan_id="loan-1"))
    clerk.will("take_back", fail, fail)
    counted = Counted()

    for _ in range(2):
        await branch.take(CardRefused(loan_id="loan-1", reason="expired"))

    assert counted("saga_step_entries_total", **LOAN, step="lend_book", to_state="retrying") == 1
    assert counted("saga_step_entries_total", **LOAN, step="lend_book", to_state="dead_lettered") == 1
    assert counted("saga_dead_letters_total") == 1
    assert counted("saga_compensations_failed_total", **LOAN, step="lend_book") == 1


async def test_overdue_steps_are_counted(branch: Branch) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    branch.clock.advance(timedelta(hours=1))
    settings = Settings(overdue_after=timedelta(minutes=1))
    watch = Watchdog(
        branch.executor.service, settings, database=branch.database, relay=branch.relay, clock=branch.clock
    )
    counted = Counted()

    await watch.sweep()

    assert counted("saga_step_entries_total", **LOAN, step="lend_book", to_state="overdue") == 1
