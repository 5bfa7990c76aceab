"""An external join is claimed with its last event, and called again with all of its events from the log."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import log_of, notes, states
from tests.example_sagas.parallel_trip import PATIENCE, RoomBooked
from tests.example_sagas.travel import Script
from tests.unit.runtime.holidays import CAR, FLIGHT, ROOM, booking, paid, payments, taken, timers
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def payment(database: Database, script: Script, clock: ManualClock) -> Branch:
    return await payments(database, script, clock, is_external=True)


async def claimed(payment: Branch, clock: ManualClock) -> None:
    """Claim the call, whose process then dies."""
    for event in (ROOM, FLIGHT, CAR):
        await payment.executor.execute([booking(event, clock)])


async def test_an_external_join_runs_with_all_events(payment: Branch, database: Database, clock: ManualClock) -> None:
    for event in (CAR, ROOM, FLIGHT):
        await taken(payment, booking(event, clock))

    assert await states(database, "trip-1") == ["gathering", "gathering", "executing", "completed"]
    assert (await paid(database), await timers(database)) == (["550 paid"], [])


@pytest.mark.parametrize("again", [ROOM, CAR])
async def test_a_redelivery_calls_again_with_all_events(
    payment: Branch, database: Database, clock: ManualClock, again: RoomBooked
) -> None:
    await claimed(payment, clock)

    await taken(payment, booking(again, clock))

    assert (await states(database, "trip-1"))[-1] == "completed"
    assert (await paid(database), await notes(database, "trip-1")) == (["550 paid"], [])


async def test_another_event_makes_no_call(
    payment: Branch, database: Database, clock: ManualClock, script: Script
) -> None:
    await claimed(payment, clock)

    await taken(payment, booking(ROOM, clock, event_id="another"))

    assert (await states(database, "trip-1"))[-1] == "executing"
    assert (await notes(database, "trip-1"), script.calls["take_payment"]) == (["ignored"], 0)


async def test_a_failed_call_is_retried_until_the_deadline(
    payment: Branch, database: Database, clock: ManualClock, script: Script
) -> None:
    await taken(payment, booking(ROOM, clock, at=clock.now() - PATIENCE + timedelta(seconds=1)))
    script.plan("take_payment", ValueError("the bank is closed"))
    await taken(payment, booking(FLIGHT, clock), booking(CAR, clock))
    clock.advance(timedelta(seconds=1))

    await taken(payment, booking(CAR, clock, attempt=2))

    last = (await log_of(database, "trip-1"))[-1]
    assert (last.to_state, last.error) == ("failed", "its deadline has passed")
    assert script.calls["take_payment"] == 1


async def test_a_copy_during_the_call_calls_once(
    payment: Branch, database: Database, clock: ManualClock, script: Script
) -> None:
    called, may_answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        called.set()
        await may_answer.wait()

    script.plan("take_payment", slow)
    calling = asyncio.create_task(taken(payment, *(booking(event, clock) for event in (ROOM, FLIGHT, CAR))))
    await called.wait()
    copy = asyncio.create_task(taken(payment, booking(ROOM, clock)))
    await asyncio.sleep(0)
    may_answer.set()
    await asyncio.gather(calling, copy)

    assert (await paid(database), script.calls["take_payment"]) == (["550 paid"], 1)
