"""The search for overdue steps: one of several replicas finds each, and steps whose log is gone are forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

from sqlalchemy import delete, text, update

from tests.eventually import eventually
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import notes, rows_left
from tests.example_sagas.loans import NOON, BookWanted, Clerk, library
from toolkit import Settings
from toolkit.persistence import overdue_search, overdue_steps, saga_log
from toolkit.persistence.database import Database
from toolkit.protocol.pending_rows import OverdueStep
from toolkit.runtime.watchdog import Watchdog
from toolkit.testing import ManualClock

LATE = NOON + timedelta(hours=1)
WANTED = BookWanted(loan_id="loan-1")


async def find(database: Database) -> list[OverdueStep]:
    async with database.transaction() as session:
        found = await overdue_search.find(await session.connection(), before=LATE, now=LATE)
        return found.steps


def watch_of(branch: Branch, clerk: Clerk) -> Watchdog:
    return Watchdog(library(clerk), Settings(), database=branch.database, relay=branch.relay, clock=branch.clock)


async def test_replicas_searching_at_once_find_a_step_once(postgres: Database, clerk: Clerk) -> None:
    await Branch(library(clerk), postgres, resources={Clerk: clerk}, clock=ManualClock(NOON)).take(WANTED)

    async def second_waits() -> bool:
        async with postgres.reading() as connection:
            return bool(await connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    async with postgres.transaction() as session:
        first = (await overdue_search.find(await session.connection(), before=LATE, now=LATE)).steps
        searching = asyncio.create_task(find(postgres))
        await eventually(second_waits, what="the second replica")
    second = await searching

    assert [step.saga_id for step in first] == ["loan-1"]
    assert second == []


async def test_the_next_search_continues_where_it_stopped(database: Database, clerk: Clerk) -> None:
    await Branch(library(clerk), database, resources={Clerk: clerk}, clock=ManualClock(NOON)).take(WANTED)

    assert [step.saga_id for step in await find(database)] == ["loan-1"]
    assert await find(database) == []


async def test_an_undeclared_event_is_not_sent_again(database: Database, clerk: Clerk) -> None:
    clock = ManualClock(NOON)
    branch = Branch(library(clerk), database, resources={Clerk: clerk}, clock=clock)
    await branch.take(WANTED, BookWanted(loan_id="loan-2"))
    await branch.relay.drain()
    async with database.transaction() as session:
        renamed = update(saga_log.saga_log).where(saga_log.saga_log.c.saga_id == "loan-1")
        await (await session.connection()).execute(renamed.values(emitted_type="BookGivenAway"))

    clock.advance(timedelta(hours=1))
    await watch_of(branch, clerk).sweep()

    assert await notes(database, "loan-1") == await notes(database, "loan-2")
    assert await rows_left(database) == ["loan-1", "loan-2", "loan-2"]  # the aborts of both, and one event
    assert "BookGivenAway" not in {each.type for each in branch.publisher.taken}


async def test_a_step_whose_log_is_gone_is_forgotten(database: Database, clerk: Clerk) -> None:
    clock = ManualClock(NOON)
    branch = Branch(library(clerk), database, resources={Clerk: clerk}, clock=clock)
    await branch.take(WANTED)
    clock.advance(timedelta(hours=1))
    await find(database)
    async with database.transaction() as session:
        await (await session.connection()).execute(delete(saga_log.saga_log))

    await watch_of(branch, clerk).sweep()

    async with database.reading() as connection:
        assert await overdue_steps.listed(connection) == []


async def test_an_endless_saga_costs_few_entries_and_nudges(database: Database, clerk: Clerk) -> None:
    clock = ManualClock(NOON)
    branch = Branch(library(clerk), database, resources={Clerk: clerk}, clock=clock)
    await branch.take(WANTED)
    await branch.relay.drain()
    branch.publisher.taken.clear()
    watch = watch_of(branch, clerk)

    for _ in range(2 * 24 * 6):
        clock.advance(timedelta(minutes=10))
        await watch.sweep()
        await branch.relay.drain()

    noted = await notes(database, "loan-1")
    sent = Counter(wire.type for wire in branch.publisher.taken)
    assert Counter(noted) == {"overdue": 1, "nudged": 8, "aborted": 1}
    assert 48 <= sent["BookLent"] <= 56, "a nudge an hour, and a few more at first"
    assert 46 <= sent["AbortRequested"] <= 49
    assert (
        len({wire.headers["nudge"] for wire in branch.publisher.taken if wire.type == "BookLent"}) == sent["BookLent"]
    )


async def test_the_first_abort_comes_in_time(database: Database, clerk: Clerk) -> None:
    clock = ManualClock(NOON)
    branch = Branch(library(clerk), database, resources={Clerk: clerk}, clock=clock)
    await branch.take(WANTED)
    watch = watch_of(branch, clerk)

    for _ in range(61):
        clock.advance(timedelta(minutes=1))
        await watch.sweep()
    await branch.relay.drain()

    (abort,) = [wire for wire in branch.publisher.taken if wire.type == "AbortRequested"]
    assert abort.timestamp == NOON + timedelta(hours=1)
    assert abort.headers["started-at"] == NOON.isoformat()
