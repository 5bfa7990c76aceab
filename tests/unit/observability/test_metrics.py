"""What Prometheus is told is what was committed, and what waits is read from the tables."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from sqlalchemy import insert

from tests.example_sagas.loans import (
    NOON,
    BookLent,
    BookWanted,
    Branch,
    CardRefused,
    Clerk,
    HandClock,
    LoanRefused,
    LoanRegistered,
    letter,
    library,
    loan_saga,
    put_out,
)
from tests.example_sagas.loans import outgoing as row_of
from toolkit import Participant, Service, Settings
from toolkit.api import ApiContext, application, health_routes
from toolkit.declaration.contract import Contract
from toolkit.declaration.events import AbortRequested, SagaState
from toolkit.errors import UnroutableError
from toolkit.observability.metrics import UNDECLARED, Meter
from toolkit.persistence.database import Database
from toolkit.persistence.overdue_steps import overdue
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import Note, StepState
from toolkit.runtime.watchdog import Watchdog

LOAN = {"service": "library", "saga_type": "loan"}


@pytest.fixture
def branch(database: Database, clerk: Clerk) -> Branch:
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=HandClock())


class Counted:
    """What was counted since this was made."""

    def __init__(self, service: str = "library") -> None:
        self._service, self._before = service, self._all()

    def __call__(self, name: str, **labels: str) -> float:
        key = name, frozenset(({"service": self._service} | labels).items())
        return self._all().get(key, 0) - self._before.get(key, 0)

    def _all(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        samples = [sample for family in REGISTRY.collect() for sample in family.samples]
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


async def test_a_step_is_counted_by_where_it_went(branch: Branch) -> None:
    counted = Counted()

    await branch.take(BookWanted(loan_id="loan-1"), BookWanted(loan_id="loan-2"))
    await branch.take(CardRefused(loan_id="loan-2", reason="expired"))

    assert counted("saga_started_total", **LOAN) == 2
    assert counted("saga_step_entries_total", **LOAN, step="lend_book", to_state="completed") == 2
    assert counted("saga_step_entries_total", **LOAN, step="lend_book", to_state="compensated") == 1
    assert counted("saga_batch_size_count") == 2
    assert counted("saga_batch_size_sum") == 3


async def test_a_refusal_is_counted_as_the_beginning_of_the_way_back(branch: Branch, clerk: Clerk) -> None:
    async def refuse(event, _) -> LoanRefused:
        return LoanRefused(loan_id=event.loan_id, reason="lent to somebody else")

    clerk.will("lend_book", refuse)
    counted = Counted()

    await branch.take(BookWanted(loan_id="loan-1"))

    assert counted("saga_compensating_total", **LOAN) == 1
    assert counted("saga_started_total", **LOAN) == 1
    assert counted("saga_step_refusals_total", **LOAN, step="lend_book") == 1


async def test_who_ends_a_saga_tells_how_long_it_took_if_its_events_tell_when_it_began(database: Database):
    desk = Branch(desk_service(), database, resources={}, clock=HandClock(NOON + timedelta(seconds=42)))
    counted = Counted(service="desk")

    lent = letter(BookLent(loan_id="loan-1"), at=NOON, started_at=NOON)
    foreign = letter(BookLent(loan_id="loan-2"), at=NOON)
    await desk.executor.execute([lent, foreign])

    took = {"saga_type": "loan", "outcome": "completed"}
    assert counted("saga_completed_total", saga_type="loan") == 2
    assert counted("saga_duration_seconds_count", **took) == 1
    assert counted("saga_duration_seconds_sum", **took) == 42


async def test_when_a_saga_began_is_handed_on_from_event_to_event(branch: Branch) -> None:
    wanted = letter(BookWanted(loan_id="loan-1"), at=NOON, started_at=NOON)
    await branch.executor.execute([wanted])
    await branch.relay.drain()

    (sent,) = branch.post.taken

    assert sent.headers["started-at"] == NOON.isoformat()


async def test_attempts_are_timed_the_failed_ones_too(branch: Branch, clerk: Clerk) -> None:
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
async def test_an_outside_call_is_timed_from_its_beginning_to_its_end(database: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk, external=True), database, resources={Clerk: clerk})
    counted = Counted()

    await branch.handle(BookWanted(loan_id="loan-1"))

    assert counted("saga_step_duration_seconds_count", **LOAN, step="lend_book") == 1


async def test_each_way_in_which_the_fence_is_met_is_counted(branch: Branch) -> None:
    counted = Counted()

    await branch.take(BookWanted(loan_id="loan-1"))
    await branch.take(BookWanted(loan_id="loan-1"))
    await branch.executor.execute([letter(BookWanted(loan_id="loan-1"), at=branch.clock.now(), event_id="another")])
    await branch.take(CardRefused(loan_id="loan-2", reason="expired"))

    hits = LOAN | {"step": "lend_book"}
    assert counted("saga_fence_hits_total", **hits, kind="duplicate") == 1
    assert counted("saga_fence_hits_total", **hits, kind="late") == 1
    assert counted("saga_fence_hits_total", **hits, kind="compensation_first") == 1


async def test_an_abort_that_comes_before_the_step_is_counted(branch: Branch) -> None:
    counted = Counted()
    abort = AbortRequested(saga_type="loan", saga_id="loan-1", reason="closed")

    await branch.executor.execute([letter(abort, at=branch.clock.now(), saga_id="loan-1")])

    assert counted("saga_fence_hits_total", **LOAN, step="lend_book", kind="abort") == 1


async def test_confirms_returns_and_failures_of_the_relay_are_counted(branch: Branch) -> None:
    async def return_it(_) -> None:
        raise UnroutableError("nobody hears it")

    async def be_away(_) -> None:
        raise ConnectionError("the broker is away")

    branch.post.will(return_it, be_away)
    counted = Counted()

    for number in range(3):
        await branch.take(BookWanted(loan_id=f"loan-{number}"))
        await branch.relay.drain()

    assert counted("saga_relay_returns_total") == 1
    assert counted("saga_relay_failures_total") == 1
    assert counted("saga_relay_confirms_total") == 1


def test_what_may_come_is_told_at_zero_so_that_its_first_rise_is_seen(clerk: Clerk):
    Meter(library(clerk))

    shown = {(sample.name, sample.labels.get("step")) for family in REGISTRY.collect() for sample in family.samples}

    for name in ("saga_step_retries_total", "saga_step_refusals_total", "saga_compensations_failed_total"):
        assert (name, "lend_book") in shown
    assert ("saga_relay_returns_total", None) in shown


def test_no_name_that_is_not_declared_becomes_a_label(clerk: Clerk):
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


async def test_what_is_rolled_back_is_not_counted(branch: Branch, clerk: Clerk) -> None:
    counted = Counted()

    with pytest.raises(Exception, match=r"FOREIGN KEY|foreign key"):
        await branch.take(BookWanted(loan_id="loan-1", shelf=77))  # found out at the commit

    assert counted("saga_started_total", **LOAN) == 0
    assert counted("saga_step_entries_total", **LOAN, step="lend_book", to_state="completed") == 0
    assert counted("saga_batch_size_count") == 0
    assert counted("saga_step_refusals_total", **LOAN, step="lend_book") == 0


async def test_a_compensation_that_failed_for_good_counts_as_a_dead_letter(branch: Branch, clerk: Clerk) -> None:
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


async def test_what_is_overdue_is_counted(branch: Branch) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    branch.clock.advance(hours=1)
    settings = Settings(overdue_after=timedelta(minutes=1))
    watch = Watchdog(
        branch.executor.service, settings, database=branch.database, relay=branch.relay, clock=branch.clock
    )
    counted = Counted()

    await watch.sweep()

    assert counted("saga_step_entries_total", **LOAN, step="lend_book", to_state="overdue") == 1


async def test_prometheus_reads_what_waits_from_the_tables(branch: Branch) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    await branch.relay.drain()
    await put_out(branch.database, row_of("loan-2", due_at=branch.clock.now()))

    told = await scrape(branch.database)

    assert told["saga_outbox_rows"] == 1
    assert told["saga_dead_letters_open"] == 0
    assert told["saga_overdue_steps"] == 0
    assert told["saga_stuck"] == 0
    assert told["saga_outbox_oldest_seconds"] > 0
    assert told["saga_ready"] == 1
    assert told["saga_started_total"] >= 1


async def test_sagas_that_stand_still_are_told_by_type_and_state(database: Database) -> None:
    late = [("loan-1", "lend_book", "loan"), ("loan-1", "remind", "loan"), ("loan-2", "lend_book", "loan")]
    async with database.transaction() as session:
        rows = [overdue_row(*each) for each in (*late, ("trip-1", "sail", "voyage"))]
        await (await session.connection()).execute(insert(overdue), rows)

    page = await scraped(database)

    stuck = {(s.labels["saga_type"], s.labels["state"]): s.value for s in page if s.name == "saga_stuck"}
    assert stuck[("loan", "Compensating")] == 2
    assert stuck[("loan", "Pending")] == 0
    assert stuck[(UNDECLARED, "Compensating")] == 1


def overdue_row(saga_id: str, step: str, saga_type: str) -> dict[str, object]:
    return {
        "saga_id": saga_id, "step": step, "saga_type": saga_type, "position": 1, "state": StepState.COMPLETED,
        "saga_state": SagaState.COMPENSATING, "since": NOON, "next_at": NOON, "nudges": 0, "aborted": 0,
    }  # fmt: skip


async def test_while_the_database_is_away_prometheus_gets_what_was_counted_and_no_stale_figure(branch: Branch) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    before = await scrape(branch.database)
    away = Database("postgresql://postgres@127.0.0.1:1/payment")

    told = await scrape(away)
    await away.close()

    waiting = {"saga_outbox_rows", "saga_outbox_oldest_seconds", "saga_dead_letters_open", "saga_overdue_steps"}
    waiting |= {"saga_stuck"}
    assert waiting <= before.keys()
    assert not waiting & told.keys()
    assert told["saga_started_total"] == before["saga_started_total"]


async def scrape(database: Database) -> dict[str, float]:
    """Return what the service's page says of it, by name."""
    return {sample.name: sample.value for sample in await scraped(database)}


async def scraped(database: Database) -> list[Sample]:
    """Return what the service's page says of it."""

    async def readiness() -> dict[str, bool]:
        return {"database": True}

    service = library(Clerk())
    site = ApiContext(
        service=service, contract=Contract.of(service), database=database, readiness=readiness,
        queue="saga.library", clock=HandClock(),
    )  # fmt: skip
    api = application(health_routes(site), names=("library",))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://library") as client:
        response = await client.get("/metrics")
    assert response.status_code == 200
    families = text_string_to_metric_families(response.text)
    samples = [sample for family in families for sample in family.samples]
    return [sample for sample in samples if sample.labels.get("service") == "library"]
