"""An external call runs between two transactions; a slow or late one changes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.eventually import eventually
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import dead_letters_of, lent, notes, states
from tests.example_sagas.loans import BookWanted, Clerk, LoanRefused, stock
from tests.unit.runtime.external_branches import Call, external_branch
from tests.unit.runtime.loan_requests import CARD_REFUSED, WANTED, fails
from toolkit import Event
from toolkit.persistence.database import Database


async def test_a_claim_is_logged_during_the_call(database: Database, clerk: Clerk) -> None:
    one, call = external_branch(clerk, database), Call()
    clerk.will("lend_book", call)

    handling = asyncio.create_task(one.handle(WANTED))
    await call.begun.wait()

    assert await states(database, "loan-1") == ["executing"]
    call.may_end.set()
    await handling
    assert await states(database, "loan-1") == ["executing", "completed"]
    assert await lent(database) == ["loan-1"]


async def test_a_running_call_is_not_repeated(database: Database, clerk: Clerk) -> None:
    one, call = external_branch(clerk, database), Call()
    clerk.will("lend_book", call)

    first = asyncio.create_task(one.handle(WANTED))
    await call.begun.wait()
    (second_call,) = await one.take(WANTED)
    second = asyncio.create_task(one.external_calls.run(second_call))
    call.may_end.set()
    await asyncio.gather(first, second)

    assert clerk.calls == [("lend_book", "loan-1")]
    assert await states(database, "loan-1") == ["executing", "completed"]


async def test_a_failure_after_a_completion_changes_nothing(database: Database, clerk: Clerk) -> None:
    slow, quick = external_branch(clerk, database), external_branch(clerk, database)
    hanging = Call(ConnectionError("the line is dead"))
    clerk.will("lend_book", hanging)
    hanging_on = asyncio.create_task(slow.handle(WANTED))
    await hanging.begun.wait()

    await quick.handle(WANTED)
    hanging.may_end.set()
    await hanging_on

    assert await states(database, "loan-1") == ["executing", "completed"]
    assert await notes(database, "loan-1") == []


async def test_a_compensation_runs_beside_a_hanging_call(database: Database, clerk: Clerk) -> None:
    slow, quick = external_branch(clerk, database), external_branch(clerk, database)
    hanging = Call()
    clerk.will("lend_book", hanging)
    hanging_on = asyncio.create_task(slow.handle(WANTED))
    await hanging.begun.wait()
    await quick.handle(WANTED)

    undoing = asyncio.create_task(slow.handle(CARD_REFUSED))

    async def is_undone() -> bool:
        return "compensated" in await states(database, "loan-1")

    await eventually(is_undone, what="the compensation")
    hanging.may_end.set()
    await asyncio.gather(hanging_on, undoing)
    assert await states(database, "loan-1") == ["executing", "completed", "compensating", "compensated"]


async def test_an_uncommittable_result_is_a_failed_attempt(database: Database, clerk: Clerk) -> None:
    one = external_branch(clerk, database)
    nowhere = BookWanted(loan_id="loan-1", shelf=77)

    await one.handle(nowhere)
    await one.handle(nowhere)

    assert await states(database, "loan-1") == ["executing", "voiding", "failed"]
    assert await notes(database, "loan-1") == ["retrying"]
    assert await lent(database) == []


async def test_contention_repeats_a_call_without_an_attempt(postgres: Database, clerk: Clerk) -> None:
    one = external_branch(clerk, postgres)

    async def meets_another(_: Event, session: AsyncSession) -> None:
        await (await session.connection()).execute(
            text("DO $$ BEGIN RAISE EXCEPTION 'met another' USING ERRCODE = '40001'; END $$")
        )

    clerk.will("lend_book", meets_another, meets_another, meets_another)
    async with one.open():
        await one.batcher.deliver(wire(WANTED))

    assert await states(postgres, "loan-1") == ["executing", "completed"]
    assert await notes(postgres, "loan-1") == []
    assert await lent(postgres) == ["loan-1"]


async def test_a_refusal_after_a_call_leaves_nothing_behind(database: Database, clerk: Clerk) -> None:
    one = external_branch(clerk, database)

    async def refuse(event: BookWanted, session: AsyncSession) -> Event:
        await (await session.connection()).execute(text("UPDATE shelves SET books = 0"))
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    clerk.will("lend_book", refuse)
    await one.handle(WANTED)

    assert await states(database, "loan-1") == ["executing", "failed"]
    async with database.reading() as connection:
        assert await connection.scalar(text("SELECT min(books) FROM shelves")) == 100


def test_a_running_call_ends_with_its_process(clerk: Clerk, tmp_path: Path) -> None:
    call = Call()
    clerk.will("lend_book", call)

    async def process() -> None:
        database = Database(f"sqlite:///{tmp_path / 'ended.db'}")
        await stock(database)
        one = external_branch(clerk, database)
        one.handling = asyncio.create_task(one.handle(WANTED))  # type: ignore[attr-defined]
        await call.begun.wait()

    asyncio.run(process())

    assert call.was_cut_off


async def test_calls_at_once_stay_within_the_limit(database: Database, clerk: Clerk) -> None:
    one = external_branch(clerk, database)
    calls = [Call() for _ in range(9)]
    clerk.will("lend_book", *calls)

    handling = [asyncio.create_task(one.handle(BookWanted(loan_id=f"loan-{number}"))) for number in range(9)]
    await asyncio.gather(*(call.begun.wait() for call in calls[:8]))
    ninth_waits = not calls[8].begun.is_set()
    for call in calls:
        call.may_end.set()
    await asyncio.gather(*handling)

    assert ninth_waits
    assert len(await lent(database)) == 9


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_failing_external_compensation_is_a_dead_letter(
    database: Database, clerk: Clerk, failures: int
) -> None:
    one = external_branch(clerk, database)
    await one.handle(WANTED)
    clerk.will("take_back", *[fails(ConnectionError("the line is dead"))] * failures)

    await one.handle(CARD_REFUSED)
    await one.handle(CARD_REFUSED)

    undone = ["compensated"] if failures == 1 else []
    assert await states(database, "loan-1") == ["executing", "completed", "compensating", *undone]
    assert len(await dead_letters_of(database)) == failures - 1
