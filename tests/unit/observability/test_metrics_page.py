"""The page that Prometheus scrapes: counters from zero, and gauges read from the tables."""

from __future__ import annotations

import httpx
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from sqlalchemy import insert

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import outbox_row as row_of
from tests.example_sagas.loan_rows import add_to_outbox
from tests.example_sagas.loans import NOON, BookWanted, Clerk, library
from toolkit.api import ApiContext, application, health_routes
from toolkit.declaration.contract import Contract
from toolkit.declaration.events import SagaState
from toolkit.observability.metrics import UNDECLARED, Meter
from toolkit.persistence.database import Database
from toolkit.persistence.overdue_steps import overdue
from toolkit.protocol.fence import StepState
from toolkit.testing import ManualClock


def test_counters_are_exported_from_zero(clerk: Clerk):
    Meter(library(clerk))

    shown = {(sample.name, sample.labels.get("step")) for family in REGISTRY.collect() for sample in family.samples}

    for name in ("saga_step_retries_total", "saga_step_refusals_total", "saga_compensations_failed_total"):
        assert (name, "lend_book") in shown
    assert ("saga_relay_returns_total", None) in shown


async def test_gauges_are_read_from_the_tables(branch: Branch) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    await branch.relay.drain()
    await add_to_outbox(branch.database, row_of("loan-2", due_at=branch.clock.now()))

    page = await scrape(branch.database)

    assert page["saga_outbox_rows"] == 1
    assert page["saga_dead_letters_open"] == 0
    assert page["saga_overdue_steps"] == 0
    assert page["saga_stuck"] == 0
    assert page["saga_outbox_oldest_seconds"] > 0
    assert page["saga_ready"] == 1
    assert page["saga_started_total"] >= 1


async def test_stuck_sagas_are_counted_by_type_and_state(database: Database) -> None:
    late = [("loan-1", "lend_book", "loan"), ("loan-1", "remind", "loan"), ("loan-2", "lend_book", "loan")]
    async with database.transaction() as session:
        rows = [overdue_row(*each) for each in (*late, ("trip-1", "sail", "voyage"))]
        await (await session.connection()).execute(insert(overdue), rows)

    samples = await scraped(database)

    stuck = {(s.labels["saga_type"], s.labels["state"]): s.value for s in samples if s.name == "saga_stuck"}
    assert stuck[("loan", "Compensating")] == 2
    assert stuck[("loan", "Pending")] == 0
    assert stuck[(UNDECLARED, "Compensating")] == 1


def overdue_row(saga_id: str, step: str, saga_type: str) -> dict[str, object]:
    return {
        "saga_id": saga_id, "step": step, "saga_type": saga_type, "position": 1, "state": StepState.COMPLETED,
        "saga_state": SagaState.COMPENSATING, "since": NOON, "next_at": NOON, "nudges": 0, "aborted": 0,
    }  # fmt: skip


async def test_a_database_outage_leaves_no_stale_gauge(branch: Branch) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    before = await scrape(branch.database)
    away = Database("postgresql://postgres@127.0.0.1:1/payment")

    page = await scrape(away)
    await away.close()

    waiting = {"saga_outbox_rows", "saga_outbox_oldest_seconds", "saga_dead_letters_open", "saga_overdue_steps"}
    waiting |= {"saga_stuck"}
    assert waiting <= before.keys()
    assert not waiting & page.keys()
    assert page["saga_started_total"] == before["saga_started_total"]


async def scrape(database: Database) -> dict[str, float]:
    """Return the values of the service's samples, by name."""
    return {sample.name: sample.value for sample in await scraped(database)}


async def scraped(database: Database) -> list[Sample]:
    """Return the service's samples from its page."""

    async def readiness() -> dict[str, bool]:
        return {"database": True}

    service = library(Clerk())
    context = ApiContext(
        service=service, contract=Contract.of(service), database=database, readiness=readiness,
        queue="saga.library", clock=ManualClock(NOON),
    )  # fmt: skip
    api = application(health_routes(context), names=("library",))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://library") as client:
        response = await client.get("/metrics")
    assert response.status_code == 200
    families = text_string_to_metric_families(response.text)
    samples = [sample for family in families for sample in family.samples]
    return [sample for sample in samples if sample.labels.get("service") == "library"]
