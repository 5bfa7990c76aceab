"""What Prometheus is told is what was committed, and what waits is read from the tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.loans import BookWanted, Branch, CardRefused, Clerk, LoanRefused, Watch, library, put_out
from tests.unit.loans import outgoing as row_of
from toolkit import Settings
from toolkit.api import api_routes, application
from toolkit.contract import Contract
from toolkit.database import Database
from toolkit.watch import Watch as OverdueWatch

LOAN = {"service": "library", "saga_type": "loan"}


@pytest.fixture
def branch(database: Database, clerk: Clerk) -> Branch:
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=Watch())


class Counted:
    """What was counted since this was made."""

    def __init__(self) -> None:
        self._before = self._all()

    def __call__(self, name: str, **labels: str) -> float:
        key = name, frozenset(({"service": "library"} | labels).items())
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


async def test_what_is_rolled_back_is_not_counted(branch: Branch, clerk: Clerk) -> None:
    counted = Counted()

    with pytest.raises(Exception, match=r"FOREIGN KEY|foreign key"):
        await branch.take(BookWanted(loan_id="loan-1", shelf=77))  # found out at the commit

    assert counted("saga_started_total", **LOAN) == 0
    assert counted("saga_step_entries_total", **LOAN, step="lend_book", to_state="completed") == 0
    assert counted("saga_batch_size_count") == 0


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


async def test_what_is_overdue_is_counted(branch: Branch) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    branch.clock.advance(hours=1)
    settings = Settings(overdue_after=timedelta(minutes=1))
    watch = OverdueWatch(
        branch.execution.service, settings, database=branch.database, relay=branch.relay, clock=branch.clock
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
    assert told["saga_started_total"] >= 1


async def test_while_the_database_is_away_prometheus_gets_what_was_counted_and_no_stale_figure(branch: Branch) -> None:
    await branch.take(BookWanted(loan_id="loan-1"))
    before = await scrape(branch.database)
    away = Database("postgresql://postgres@127.0.0.1:1/payment")

    told = await scrape(away)
    await away.close()

    waiting = {"saga_outbox_rows", "saga_dead_letters_open", "saga_overdue_steps"}
    assert waiting <= before.keys()
    assert not waiting & told.keys()
    assert told["saga_started_total"] == before["saga_started_total"]


async def scrape(database: Database) -> dict[str, float]:
    """Return what the service's page says of it, by name."""

    async def readiness() -> dict[str, bool]:
        return {}

    service = library(Clerk())
    facts: Any = {"queue": "saga.library", "token": None, "clock": Watch()}
    api = application(api_routes(service, Contract.of(service), database, readiness, **facts))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://library") as client:
        response = await client.get("/metrics")
    assert response.status_code == 200
    families = text_string_to_metric_families(response.text)
    samples = [sample for family in families for sample in family.samples]
    return {sample.name: sample.value for sample in samples if sample.labels.get("service") == "library"}
