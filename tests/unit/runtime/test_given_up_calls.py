"""A step that gives its external call up takes a position first, then voids the call."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.loan_rows import dead_letters_of, lent, log_of, notes, states
from tests.example_sagas.loans import NOON, BookLent, BookWanted, Clerk
from tests.unit.runtime.external_branches import Call, external_branch
from tests.unit.runtime.loan_requests import WANTED, fails
from toolkit import Event
from toolkit.persistence.database import Database
from toolkit.runtime.unit_of_work import ExternalCall
from toolkit.testing import ManualClock

#: How long a call may last in real time; the test's clock stands still, so that a slow machine claims it in time.
MOMENT = timedelta(milliseconds=300)


async def claimed_for_a_moment(branch: Branch) -> ExternalCall:
    """Claim the call of a step whose deadline is a moment ahead."""
    ((call,),) = await branch.executor.execute([message_of(WANTED, at=NOON, deadline=NOON + MOMENT)])
    return call


async def test_giving_up_after_a_completion_voids_nothing(database: Database, clerk: Clerk) -> None:
    clock = ManualClock(NOON)
    quick, slow = external_branch(clerk, database, clock), external_branch(clerk, database, clock)
    calls = await quick.take(WANTED)
    again = await slow.take(WANTED)
    await quick.external_calls.run(calls[0])

    clock.advance(timedelta(minutes=2))
    await slow.external_calls.run(again[0])

    assert await states(database, "loan-1") == ["executing", "completed"]
    assert ("take_back", "loan-1") not in clerk.calls


async def test_an_answer_after_giving_up_cannot_complete(database: Database, clerk: Clerk) -> None:
    clock = ManualClock(NOON)
    slow, late = external_branch(clerk, database, clock), external_branch(clerk, database, clock)
    hanging = Call()
    clerk.will("lend_book", hanging)
    calls = await slow.take(WANTED)
    again = await late.take(WANTED)
    calling = asyncio.create_task(slow.external_calls.run(calls[0]))
    await hanging.begun.wait()

    clock.advance(timedelta(minutes=2))
    await late.external_calls.run(again[0])
    hanging.may_end.set()
    await calling

    assert await states(database, "loan-1") == ["executing", "voiding", "failed"]
    assert await lent(database) == []


async def test_giving_up_without_compensation_refuses_at_once(database: Database, clerk: Clerk) -> None:
    clock = ManualClock(NOON)
    one = external_branch(clerk, database, clock, undoable=False)
    calls = await one.take(WANTED)

    clock.advance(timedelta(minutes=2))
    await one.external_calls.run(calls[0])

    assert await states(database, "loan-1") == ["executing", "failed"]
    assert clerk.calls == []


async def test_giving_up_without_refusal_is_a_dead_letter(database: Database, clerk: Clerk) -> None:
    one = external_branch(clerk, database, refusable=False, undoable=False)
    clerk.will("lend_book", *[fails(ConnectionError("the line is dead"))] * 2)

    await one.handle(WANTED)
    await one.handle(WANTED)

    assert await states(database, "loan-1") == ["executing"]
    assert await notes(database, "loan-1") == ["retrying", "dead_lettered"]
    assert [each.step for each in await dead_letters_of(database)] == ["lend_surely"]


async def test_a_void_continues_after_a_crash(database: Database, clerk: Clerk) -> None:
    clock = ManualClock(NOON)
    first, second = external_branch(clerk, database, clock), external_branch(clerk, database, clock)
    calls = await first.take(WANTED)
    crash = Call()
    clerk.will("take_back", crash)
    clock.advance(timedelta(minutes=2))
    voiding = asyncio.create_task(first.external_calls.run(calls[0]))
    await crash.begun.wait()

    await second.handle(WANTED)
    crash.may_end.set()
    await voiding

    assert await states(database, "loan-1") == ["executing", "voiding", "failed"]
    assert (await log_of(database, "loan-1"))[-1].error == "its deadline has passed"


async def test_a_call_past_its_deadline_is_cut_off(database: Database, clerk: Clerk) -> None:
    clock, never = ManualClock(NOON), Call()
    one = external_branch(clerk, database, clock)
    clerk.will("lend_book", never)
    call = await claimed_for_a_moment(one)

    running = asyncio.create_task(one.external_calls.run(call))
    await never.begun.wait()
    clock.advance(MOMENT)
    await running

    assert never.was_cut_off
    assert await states(database, "loan-1") == ["executing", "voiding", "failed"]


async def test_an_uncancellable_call_may_still_answer(database: Database, clerk: Clerk) -> None:
    one = external_branch(clerk, database, ManualClock(NOON))

    async def stubborn(event: BookWanted, _: AsyncSession) -> Event:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return BookLent(loan_id=event.loan_id)
        raise AssertionError

    clerk.will("lend_book", stubborn)
    call = await claimed_for_a_moment(one)

    await one.external_calls.run(call)

    assert await states(database, "loan-1") == ["executing", "completed"]


async def test_a_call_using_its_session_is_kept(database: Database, clerk: Clerk) -> None:
    one, writing = external_branch(clerk, database, ManualClock(NOON)), Call()

    async def write_slowly(event: BookWanted, session: AsyncSession) -> None:
        await (await session.connection()).execute(text("UPDATE shelves SET books = 7"))
        await writing(event, session)

    clerk.will("lend_book", write_slowly)
    call = await claimed_for_a_moment(one)
    running = asyncio.create_task(one.external_calls.run(call))
    await writing.begun.wait()

    done, _ = await asyncio.wait({running}, timeout=2 * MOMENT.total_seconds())
    writing.may_end.set()
    await running

    assert not done
    assert not writing.was_cut_off
    assert await states(database, "loan-1") == ["executing", "completed"]


async def test_a_failing_void_becomes_a_dead_letter(database: Database, clerk: Clerk) -> None:
    clock = ManualClock(NOON)
    one = external_branch(clerk, database, clock)
    (call,) = await one.take(WANTED)
    clerk.will("take_back", *[fails(ConnectionError("the line is dead"))] * 2)
    clock.advance(timedelta(minutes=2))

    await one.external_calls.run(call)
    await one.handle(WANTED)

    assert await states(database, "loan-1") == ["executing", "voiding"]
    assert await notes(database, "loan-1") == ["retrying", "dead_lettered"]
    assert [each.step for each in await dead_letters_of(database)] == ["lend_book"]
