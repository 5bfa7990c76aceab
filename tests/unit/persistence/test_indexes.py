"""A saga's cost does not grow with the tables: each of its statements finds its rows by an index."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.driver_statements import Recorded, recorded
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import outbox_row
from tests.example_sagas.loans import NOON, BookWanted, CardRefused, Clerk, library
from toolkit import Settings
from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.operations.attention import Attention
from toolkit.operations.search import Search, search
from toolkit.operations.statistics import Statistics
from toolkit.operations.views import view
from toolkit.persistence.batch_write import BatchWrite, write_batch
from toolkit.persistence.database import Database
from toolkit.persistence.saga_ends import ends_of
from toolkit.persistence.saga_log import Entry, append
from toolkit.persistence.saga_log_streams import read_streams
from toolkit.runtime.watchdog import Watchdog
from toolkit.testing import ManualClock

#: The tables that grow with the number of sagas.
GROWING = ("saga_log", "saga_outbox", "saga_overdue", "saga_dead_letters")
READS_OR_MOVES = re.compile(r"\s*(WITH|SELECT|UPDATE|DELETE|INSERT INTO \S+ \([^)]*\) SELECT)\b")

LITERAL = re.compile(r"'(?:[^']|'')*'")


@pytest.fixture
async def branch(database: Database, clerk: Clerk) -> Branch:
    async with database.transaction() as session:
        await append(await session.connection(), [old_entry(number) for number in range(2_000)])
    return Branch(library(clerk), database, resources={Clerk: clerk}, clock=ManualClock(NOON))


def old_entry(number: int) -> Entry:
    return Entry(
        service="library", saga_id=f"old-{number}", saga_type="loan", step="lend_book", position=1, from_state=None,
        to_state="completed", saga_state=SagaState.STARTED, event_id=f"event-{number}", event_type="BookWanted",
        at=NOON - timedelta(days=number),
    )  # fmt: skip


def reads_or_moves(statements: Recorded) -> Recorded:
    """Return those that read rows."""
    return [each for each in statements if READS_OR_MOVES.match(each[0])]


def without_literals(statements: Recorded) -> set[str]:
    """Return the texts of those that read rows, without their values."""
    return {LITERAL.sub("?", statement) for statement, _ in reads_or_moves(statements)}


async def scans(database: Database, statements: Recorded) -> list[str]:
    """Return the parts of the statements' plans that scan a whole table, if the planner has no alternative."""
    found = []
    async with database.engine.connect() as connection:
        for statement, parameters in reads_or_moves(statements):
            plan = await plan_of(connection, statement, parameters)
            found += [f"{line.strip()}: {statement}" for line in plan if is_scan(line)]
    return found


async def plan_of(connection: AsyncConnection, statement: str, parameters: Any) -> list[str]:
    if connection.dialect.name == "sqlite":
        rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return [row.detail for row in rows]
    # A test's tables are small, so that a scan would be the cheapest plan.
    await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    rows = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
    return [row[0] for row in rows]


def is_scan(line: str) -> bool:
    return any(re.search(rf"(Seq Scan on|SCAN) {table}\b(?! USING)", line) for table in GROWING)


async def a_saga_forward_and_one_back(branch: Branch) -> None:
    await branch.take(BookWanted(loan_id="loan-1"), BookWanted(loan_id="loan-2"))
    await branch.take(CardRefused(loan_id="loan-2", reason="expired"))
    await branch.relay.drain()
    await branch.take(SagaEnded(saga_type="loan", completed=["loan-1"], failed=["loan-2"]))


async def an_overdue_saga(branch: Branch) -> None:
    service, settings = branch.executor.service, Settings()
    watch = Watchdog(service, settings, database=branch.database, relay=branch.relay, clock=branch.clock)
    await watch.sweep()
    branch.clock.advance(timedelta(hours=1))
    await watch.sweep()


@pytest.mark.parametrize("work", [a_saga_forward_and_one_back, an_overdue_saga])
async def test_no_statement_of_a_saga_scans_a_table(branch: Branch, work: Any) -> None:
    with recorded(branch.database) as statements:
        await work(branch)

    assert len(without_literals(statements)) > 2
    assert await scans(branch.database, statements) == []


async def test_a_batch_of_all_parts_scans_no_table(branch: Branch) -> None:
    ended = SagaEnded(saga_type="loan", completed=["old-1"], failed=["old-2"])
    batch = BatchWrite(
        entries=[old_entry(3_000)],
        rows=[outbox_row("loan-1", due_at=NOON)],
        sent=["row-1"],
        ends=ends_of([("event-1", ended)], at=NOON),
        unread=[("loan", "old-3")],
    )

    with recorded(branch.database) as statements:
        async with branch.database.transaction() as session:
            await write_batch(await session.connection(), batch)

    assert reads_or_moves(statements)
    assert await scans(branch.database, statements) == []


@pytest.mark.parametrize("length", [2, 7])
async def test_a_longer_batch_is_the_same_statements(branch: Branch, length: int) -> None:
    async def end(*sagas: str) -> set[str]:
        with recorded(branch.database) as statements:
            await branch.take(*(CardRefused(loan_id=saga, reason="expired") for saga in sagas))
            await branch.relay.drain()
            await branch.take(SagaEnded(saga_type="loan", completed=[], failed=list(sagas)))
        return without_literals(statements)

    one, many = await end("loan-0"), await end(*(f"loan-{length}-{number}" for number in range(length)))

    assert len(one) > 1
    assert many == one


async def test_the_relays_claim_scans_no_table(branch: Branch) -> None:
    with recorded(branch.database) as statements:
        await branch.relay._due.claim()

    assert len(reads_or_moves(statements)) == 1
    assert await scans(branch.database, statements) == []


@pytest.mark.parametrize(
    "which",
    [
        Search(),
        Search(state=SagaState.FAILED, step="lend_book", type="loan"),
        Search(q="old-7"),
        Search(q="018f2e4c-0000-7000-8000-000000000000"),
        Search(q="no such event"),
        Search(older_than=timedelta(days=100)),
        Search(attention=Attention.OVERDUE),
    ],
    ids=str,
)
async def test_no_search_scans_a_whole_table(branch: Branch, which: Search) -> None:
    with recorded(branch.database) as statements:
        async with branch.database.reading() as connection:
            await search(connection, which, now=NOON, limit=10)

    assert statements
    assert await scans(branch.database, statements) == []


async def test_a_sagas_view_scans_only_the_outbox(branch: Branch) -> None:
    with recorded(branch.database) as statements:
        async with branch.database.reading() as connection:
            await view(connection, "old-7", {})

    found = await scans(branch.database, statements)
    assert all("outbox" in each for each in found)


async def test_statistics_scan_no_old_log_entries(branch: Branch) -> None:
    statistics = Statistics("library", branch.clock)
    await statistics.snapshot(branch.database, {})
    statistics._last = None

    with recorded(branch.database) as statements:
        await statistics.snapshot(branch.database, {})

    assert len([each for each, _ in statements if "FROM saga_log" in each]) > 3
    assert [each for each in await scans(branch.database, statements) if "saga_log" in each] == []


async def test_no_cached_plan_outlives_the_table_size(postgres: Database) -> None:
    async with postgres.reading() as connection:
        for _ in range(10):  # by default PostgreSQL caches a plan after five executions
            await read_streams(connection, ["loan-1", "loan-2"])
        kept = text(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE 'SELECT entries%'"
        )
        plans = (await connection.execute(kept)).one()

    assert tuple(plans) == (0, 10)


async def test_a_statement_that_scans_is_found(branch: Branch) -> None:
    assert await scans(branch.database, [("SELECT * FROM saga_log WHERE error = 'none'", ())])


async def test_a_large_batch_scans_no_unanalyzed_log(postgres: Database) -> None:
    async with postgres.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE saga_log SET (autovacuum_enabled = false)"))
    async with postgres.transaction() as session:
        for first in range(0, 20_000, 2_000):
            await append(await session.connection(), [old_entry(first + number) for number in range(2_000)])
    ended = SagaEnded(saga_type="loan", completed=[f"old-{number}" for number in range(50)])
    unread = [("loan", f"new-{number}") for number in range(50)]

    with recorded(postgres) as statements:
        async with postgres.batch() as transaction:
            await transaction.read_streams([f"old-{number}" for number in range(50)])
            await transaction.write(BatchWrite(ends=ends_of([("event-1", ended)], at=NOON), unread=unread))

    found = []
    async with postgres.engine.connect() as connection:
        for statement, parameters in reads_or_moves(statements):
            rows = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            found += [row[0] for row in rows if is_scan(row[0])]
    assert len(statements) == 2
    assert found == []
