"""The pruner deletes old, ended sagas in batches, and the pruning watermark records how far."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from sqlalchemy import insert, text
from structlog.testing import capture_logs

from tests.eventually import eventually
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import dead_letters_of, log_of, rename
from tests.example_sagas.loans import NOON, BookWanted
from toolkit import Settings
from toolkit.declaration.events import SagaState
from toolkit.persistence import audit_log, dead_letters, overdue_steps, pruning_watermark, saga_log, saga_log_queries
from toolkit.persistence.audit_log import Change, Operator
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import StepState
from toolkit.runtime import pruner
from toolkit.runtime.pruner import Pruned, Pruner
from toolkit.testing import ManualClock

ADA = Operator("ada@desk", "the disk is full")
DAY = timedelta(days=1)
OLD = NOON - 3 * DAY
#: The youngest age that is pruned.
EDGE = NOON - DAY


async def prune(database: Database, **facts: Any) -> Pruned:
    return await pruner.prune(database, older_than=DAY, now=NOON, **facts)


async def log(database: Database, loan_id: str, *states: SagaState, at: Any = OLD, **facts: Any) -> None:
    known = {
        "service": "library", "saga_id": loan_id, "saga_type": "loan", "step": "lend_book", "from_state": None,
        "to_state": StepState.COMPLETED, "event_id": "event-1", "event_type": "BookWanted", "at": at,
    }  # fmt: skip
    entries = [
        Entry(**({**known, "position": number, "saga_state": state} | facts))
        for number, state in enumerate(states, start=1)
    ]
    async with database.transaction() as session:
        await saga_log.append(await session.connection(), entries)


async def add_dead_letter(database: Database, loan_id: str, at: Any = OLD) -> None:
    dead_letter = DeadLetter(
        id=f"dead letter of {loan_id}", service="library", reason="schema", error="no title", at=at,
        message=wire(BookWanted(loan_id=loan_id), at=OLD),
    )  # fmt: skip
    async with database.transaction() as session:
        await dead_letters.add(await session.connection(), [dead_letter])


async def test_ended_sagas_are_pruned_and_open_ones_stay(database: Database) -> None:
    await log(database, "completed", SagaState.STARTED, SagaState.COMPLETED)
    await log(database, "failed", SagaState.COMPENSATING, SagaState.FAILED)
    await log(database, "open", SagaState.STARTED, SagaState.COMPENSATING)

    pruned = await prune(database)

    assert pruned == Pruned(sagas=2, dead_letters=0, audit=0, is_all=False)
    assert await log_of(database, "completed") == await log_of(database, "failed") == []
    assert len(await log_of(database, "open")) == 2
    assert (await prune(database)).is_all


async def test_a_sagas_age_is_its_last_entrys(database: Database) -> None:
    await log(database, "edge", SagaState.COMPLETED, at=EDGE)
    await log(database, "touched", SagaState.COMPLETED)
    await log(database, "touched", SagaState.COMPLETED, at=EDGE + timedelta(seconds=1), position=None)

    await prune(database)

    assert await log_of(database, "edge") == []
    assert len(await log_of(database, "touched")) == 2


async def test_a_batch_prunes_the_oldest_sagas_first(database: Database) -> None:
    for number in range(5):
        await log(database, f"loan-{number}", SagaState.COMPLETED, at=OLD + timedelta(seconds=number))

    batches = [await prune(database, most=2) for _ in range(4)]

    assert [batch.sagas for batch in batches] == [2, 2, 1, 0]
    assert [batch.is_all for batch in batches] == [False, False, False, True]


async def test_recently_touched_sagas_delay_no_others(database: Database) -> None:
    for number in range(3):
        await log(database, f"touched-{number}", SagaState.COMPLETED)
        await log(database, f"touched-{number}", SagaState.COMPLETED, at=NOON, position=None)
    await log(database, "old", SagaState.COMPLETED, at=OLD + timedelta(hours=1))

    assert (await prune(database, most=1)).sagas == 1
    assert await log_of(database, "old") == []


async def test_old_dead_letters_of_ended_sagas_are_pruned(database: Database) -> None:
    await log(database, "open", SagaState.STARTED)
    await log(database, "ended", SagaState.FAILED)
    for loan_id in ("open", "ended", "unknown"):
        await add_dead_letter(database, loan_id)
    await add_dead_letter(database, "young", at=NOON)

    pruned = await prune(database)

    assert pruned.dead_letters == 2
    assert {each.saga_id for each in await dead_letters_of(database)} == {"open", "young"}


async def test_pruning_by_hand_is_audited(database: Database) -> None:
    await log(database, "ended", SagaState.FAILED)
    async with database.transaction() as session:
        await audit_log.add(await session.connection(), [Change("drop", "dead-letter-1")], ADA, now=OLD)

    await prune(database, by=ADA)
    await prune(database, by=ADA)

    async with database.reading() as connection:
        (row,) = await audit_log.listed(connection)
    assert (row.verb, row.actor, row.reason) == ("prune", "ada@desk", "the disk is full")
    assert row.subject.endswith("1 sagas, 0 dead letters, 1 audit rows")


async def test_what_is_overdue_is_forgotten_with_its_saga(database: Database) -> None:
    await log(database, "ended", SagaState.FAILED)
    row = {
        "saga_id": "ended", "step": "lend_book", "saga_type": "loan", "position": 1, "state": "completed",
        "saga_state": "Started", "since": OLD, "next_at": OLD, "nudges": 0, "aborted": 0,
    }  # fmt: skip
    async with database.transaction() as session:
        await (await session.connection()).execute(insert(overdue_steps.overdue).values(row))

    await prune(database)

    async with database.reading() as connection:
        assert await overdue_steps.listed(connection) == []


async def test_the_pruning_watermark_only_moves_forward(database: Database) -> None:
    async def is_beyond(ago: timedelta) -> bool:
        async with database.reading() as connection:
            return pruning_watermark.is_beyond(await pruning_watermark.reached(connection), NOON - ago)

    await prune(database)
    assert not await is_beyond(9 * DAY)  # nothing was pruned yet

    await log(database, "ended", SagaState.COMPLETED)
    await prune(database)
    await log(database, "older", SagaState.COMPLETED, at=NOON - 9 * DAY)
    await pruner.prune(database, older_than=5 * DAY, now=NOON)

    assert await is_beyond(2 * DAY)
    assert await is_beyond(DAY - timedelta(minutes=30))  # as far as clocks may differ
    assert not await is_beyond(DAY - timedelta(hours=2))


async def test_several_who_prune_at_once_are_harmless(database: Database) -> None:
    for number in range(20):
        await log(database, f"loan-{number}", SagaState.STARTED, SagaState.COMPLETED)

    done = await asyncio.gather(*(prune(database) for _ in range(4)), return_exceptions=True)
    await prune(database)

    assert any(isinstance(each, Pruned) and each.sagas for each in done)
    async with database.reading() as connection:
        assert await saga_log_queries.entries(connection) == []


async def test_the_search_for_old_rows_uses_an_index(sqlite: Database) -> None:
    plans: list[str] = []
    async with sqlite.transaction() as session:
        connection = await session.connection()
        raw = await connection.get_raw_connection()
        await raw.driver_connection.set_trace_callback(plans.append)
        await pruning_watermark.prune(connection, before=NOON, most=500)
        await raw.driver_connection.set_trace_callback(None)
        search = next(statement for statement in plans if statement.startswith("SELECT saga_log.saga_type"))
        plan = str((await connection.execute(text(f"EXPLAIN QUERY PLAN {search}"))).all())

    assert "SEARCH saga_log USING INDEX saga_log_by_time" in plan
    assert "SCAN" not in plan


async def test_the_pruning_loop_runs_until_stopped(database: Database) -> None:
    await log(database, "ended", SagaState.COMPLETED)
    loop = Pruner("library", Settings(retention=DAY), database=database, clock=ManualClock(NOON))
    running = asyncio.create_task(loop.run())

    await eventually(lambda: nothing_of(database, "ended"))
    loop.stop()

    await running


async def test_an_outage_is_told_and_waited_for(database: Database) -> None:
    await rename(database, "saga_log", "elsewhere")
    loop = Pruner("library", Settings(retention=DAY), database=database, clock=ManualClock(NOON))

    with capture_logs() as logs:
        running = asyncio.create_task(loop.run())
        await eventually(lambda: asyncio.sleep(0, logs))
        loop.stop()
        await running

    assert [each["event"] for each in logs] == ["pruning failed; it is tried again later"]
    await rename(database, "elsewhere", "saga_log")


async def test_without_the_setting_nothing_is_pruned(database: Database) -> None:
    await log(database, "ended", SagaState.COMPLETED)

    loop = Pruner("library", Settings(), database=database, clock=ManualClock(NOON))
    loop.stop()
    await loop.run()

    assert len(await log_of(database, "ended")) == 1


async def nothing_of(database: Database, loan_id: str) -> bool:
    return not await log_of(database, loan_id)
