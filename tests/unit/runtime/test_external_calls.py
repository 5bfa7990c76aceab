"""An outside call is made between two transactions, and whoever is slow or late can do no harm."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.eventually import eventually
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import letter, wire
from tests.example_sagas.loan_rows import lent, letters, log_of, notes, states
from tests.example_sagas.loans import NOON, BookLent, BookWanted, CardRefused, Clerk, LoanRefused, library, stock
from toolkit import Event
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

WANTED = BookWanted(loan_id="loan-1")
CARD_REFUSED = CardRefused(loan_id="loan-1", reason="card expired")


class Call:
    """An outside call that lasts until the test ends it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.was_cut_off = False

    async def __call__(self, _: Event, __: AsyncSession) -> None:
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.was_cut_off = True
            raise
        if self.error:
            raise self.error


def branch(clerk: Clerk, database: Database, clock: ManualClock | None = None, **facts: bool) -> Branch:
    return Branch(library(clerk, external=True, **facts), database, resources={Clerk: clerk}, clock=clock)


def fails(error: Exception):
    async def deed(_: Event, __: AsyncSession) -> None:
        raise error

    return deed


async def test_a_claim_is_logged_during_the_call(database: Database, clerk: Clerk) -> None:
    one, call = branch(clerk, database), Call()
    clerk.will("lend_book", call)

    handling = asyncio.create_task(one.handle(WANTED))
    await call.begun.wait()

    assert await states(database, "loan-1") == ["executing"]
    call.may_end.set()
    await handling
    assert await states(database, "loan-1") == ["executing", "completed"]
    assert await lent(database) == ["loan-1"]


async def test_a_running_call_is_not_repeated(database: Database, clerk: Clerk) -> None:
    one, call = branch(clerk, database), Call()
    clerk.will("lend_book", call)

    first = asyncio.create_task(one.handle(WANTED))
    await call.begun.wait()
    (second_call,) = await one.take(WANTED)
    second = asyncio.create_task(one.external_calls.run(second_call))
    call.may_end.set()
    await asyncio.gather(first, second)

    assert clerk.calls == [("lend_book", "loan-1")]
    assert await states(database, "loan-1") == ["executing", "completed"]


async def test_giving_up_after_a_completion_voids_nothing(database: Database, clerk: Clerk) -> None:
    watch = ManualClock(NOON)
    quick, slow = branch(clerk, database, watch), branch(clerk, database, watch)
    calls = await quick.take(WANTED)
    again = await slow.take(WANTED)
    await quick.external_calls.run(calls[0])

    watch.advance(timedelta(minutes=2))
    await slow.external_calls.run(again[0])

    assert await states(database, "loan-1") == ["executing", "completed"]
    assert ("take_back", "loan-1") not in clerk.calls


async def test_a_failure_after_a_completion_changes_nothing(database: Database, clerk: Clerk) -> None:
    slow, quick = branch(clerk, database), branch(clerk, database)
    hanging = Call(ConnectionError("the line is dead"))
    clerk.will("lend_book", hanging)
    hanging_on = asyncio.create_task(slow.handle(WANTED))
    await hanging.begun.wait()

    await quick.handle(WANTED)
    hanging.may_end.set()
    await hanging_on

    assert await states(database, "loan-1") == ["executing", "completed"]
    assert await notes(database, "loan-1") == []


async def test_an_answer_after_giving_up_cannot_complete(database: Database, clerk: Clerk) -> None:
    watch = ManualClock(NOON)
    slow, late = branch(clerk, database, watch), branch(clerk, database, watch)
    hanging = Call()
    clerk.will("lend_book", hanging)
    calls = await slow.take(WANTED)
    again = await late.take(WANTED)
    calling = asyncio.create_task(slow.external_calls.run(calls[0]))
    await hanging.begun.wait()

    watch.advance(timedelta(minutes=2))
    await late.external_calls.run(again[0])
    hanging.may_end.set()
    await calling

    assert await states(database, "loan-1") == ["executing", "voiding", "failed"]
    assert await lent(database) == []


async def test_a_compensation_runs_beside_a_hanging_call(database: Database, clerk: Clerk) -> None:
    slow, quick = branch(clerk, database), branch(clerk, database)
    hanging = Call()
    clerk.will("lend_book", hanging)
    hanging_on = asyncio.create_task(slow.handle(WANTED))
    await hanging.begun.wait()
    await quick.handle(WANTED)

    undoing = asyncio.create_task(slow.handle(CARD_REFUSED))

    async def is_undone() -> bool:
        return "compensated" in await states(database, "loan-1")

    await eventually(is_undone, within=5, what="the compensation")
    hanging.may_end.set()
    await asyncio.gather(hanging_on, undoing)
    assert await states(database, "loan-1") == ["executing", "completed", "compensating", "compensated"]


async def test_an_uncommittable_result_is_a_failed_attempt(database: Database, clerk: Clerk) -> None:
    one = branch(clerk, database)
    nowhere = BookWanted(loan_id="loan-1", shelf=77)

    await one.handle(nowhere)
    await one.handle(nowhere)

    assert await states(database, "loan-1") == ["executing", "voiding", "failed"]
    assert await notes(database, "loan-1") == ["retrying"]
    assert await lent(database) == []


async def test_contention_repeats_a_call_without_an_attempt(postgres: Database, clerk: Clerk) -> None:
    one = branch(clerk, postgres)

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
    one = branch(clerk, database)

    async def refuse(event: BookWanted, session: AsyncSession) -> Event:
        await (await session.connection()).execute(text("UPDATE shelves SET books = 0"))
        return LoanRefused(loan_id=event.loan_id, reason="lent out")

    clerk.will("lend_book", refuse)
    await one.handle(WANTED)

    assert await states(database, "loan-1") == ["executing", "failed"]
    async with database.reading() as connection:
        assert await connection.scalar(text("SELECT min(books) FROM shelves")) == 100


async def test_giving_up_without_compensation_refuses_at_once(database: Database, clerk: Clerk) -> None:
    watch = ManualClock(NOON)
    one = branch(clerk, database, watch, undoable=False)
    calls = await one.take(WANTED)

    watch.advance(timedelta(minutes=2))
    await one.external_calls.run(calls[0])

    assert await states(database, "loan-1") == ["executing", "failed"]
    assert clerk.calls == []


async def test_giving_up_without_refusal_is_a_dead_letter(database: Database, clerk: Clerk) -> None:
    one = branch(clerk, database, refusable=False, undoable=False)
    clerk.will("lend_book", *[fails(ConnectionError("the line is dead"))] * 2)

    await one.handle(WANTED)
    await one.handle(WANTED)

    assert await states(database, "loan-1") == ["executing"]
    assert await notes(database, "loan-1") == ["retrying", "dead_lettered"]
    assert [each["step"] for each in await letters(database)] == ["lend_surely"]


async def test_a_void_continues_after_a_crash(database: Database, clerk: Clerk) -> None:
    watch = ManualClock(NOON)
    first, second = branch(clerk, database, watch), branch(clerk, database, watch)
    calls = await first.take(WANTED)
    crash = Call()
    clerk.will("take_back", crash)
    watch.advance(timedelta(minutes=2))
    voiding = asyncio.create_task(first.external_calls.run(calls[0]))
    await crash.begun.wait()

    await second.handle(WANTED)
    crash.may_end.set()
    await voiding

    assert await states(database, "loan-1") == ["executing", "voiding", "failed"]
    assert (await log_of(database, "loan-1"))[-1].error == "its deadline has passed"


async def test_a_call_past_its_deadline_is_cut_off(database: Database, clerk: Clerk) -> None:
    one, never = branch(clerk, database), Call()
    clerk.will("lend_book", never)
    soon = letter(WANTED, deadline=one.clock.now() + timedelta(seconds=2))
    ((call,),) = await one.executor.execute([soon])

    await one.external_calls.run(call)

    assert never.was_cut_off
    assert await states(database, "loan-1") == ["executing", "voiding", "failed"]


async def test_an_uncancellable_call_may_still_answer(database: Database, clerk: Clerk) -> None:
    one = branch(clerk, database)

    async def stubborn(event: BookWanted, _: AsyncSession) -> Event:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return BookLent(loan_id=event.loan_id)
        raise AssertionError

    clerk.will("lend_book", stubborn)
    soon = letter(WANTED, deadline=one.clock.now() + timedelta(seconds=2))
    ((call,),) = await one.executor.execute([soon])

    await one.external_calls.run(call)

    assert await states(database, "loan-1") == ["executing", "completed"]


async def test_a_call_using_its_session_is_kept(database: Database, clerk: Clerk) -> None:
    one, writing = branch(clerk, database), Call()

    async def write_slowly(event: BookWanted, session: AsyncSession) -> None:
        await (await session.connection()).execute(text("UPDATE shelves SET books = 7"))
        await writing(event, session)

    clerk.will("lend_book", write_slowly)
    soon = letter(WANTED, deadline=one.clock.now() + timedelta(seconds=1))
    ((call,),) = await one.executor.execute([soon])
    running = asyncio.create_task(one.external_calls.run(call))
    await writing.begun.wait()

    done, _ = await asyncio.wait({running}, timeout=1.5)
    writing.may_end.set()
    await running

    assert not done
    assert not writing.was_cut_off
    assert await states(database, "loan-1") == ["executing", "completed"]


def test_a_running_call_ends_with_its_process(clerk: Clerk, tmp_path: Path) -> None:
    call = Call()
    clerk.will("lend_book", call)

    async def process() -> None:
        database = Database(f"sqlite:///{tmp_path / 'ended.db'}")
        await stock(database)
        one = branch(clerk, database)
        one.handling = asyncio.create_task(one.handle(WANTED))  # type: ignore[attr-defined]
        await call.begun.wait()

    asyncio.run(process())

    assert call.was_cut_off


async def test_calls_at_once_stay_within_the_limit(database: Database, clerk: Clerk) -> None:
    one = branch(clerk, database)
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
    one = branch(clerk, database)
    await one.handle(WANTED)
    clerk.will("take_back", *[fails(ConnectionError("the line is dead"))] * failures)

    await one.handle(CARD_REFUSED)
    await one.handle(CARD_REFUSED)

    undone = ["compensated"] if failures == 1 else []
    assert await states(database, "loan-1") == ["executing", "completed", "compensating", *undone]
    assert len(await letters(database)) == failures - 1


async def test_a_failing_void_becomes_a_dead_letter(database: Database, clerk: Clerk) -> None:
    watch = ManualClock(NOON)
    one = branch(clerk, database, watch)
    (call,) = await one.take(WANTED)
    clerk.will("take_back", *[fails(ConnectionError("the line is dead"))] * 2)
    watch.advance(timedelta(minutes=2))

    await one.external_calls.run(call)
    await one.handle(WANTED)

    assert await states(database, "loan-1") == ["executing", "voiding"]
    assert await notes(database, "loan-1") == ["retrying", "dead_lettered"]
    assert [each["step"] for each in await letters(database)] == ["lend_book"]
