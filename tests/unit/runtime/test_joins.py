"""A join gathers its events in the log, in any order, and runs once with all of them."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from sqlalchemy import text

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import log_of, notes, states
from tests.example_sagas.parallel_trip import PATIENCE, RoomBooked
from tests.example_sagas.travel import Script
from tests.unit.runtime.holidays import CAR, FLIGHT, ROOM, booking, paid, payments, taken, timers
from toolkit.declaration.events import AbortRequested, SagaEnded
from toolkit.persistence.database import Database
from toolkit.runtime.join_transitions import JoinTransition
from toolkit.testing import ManualClock

TIMER = "timer:saga.payment:holiday:trip-1:take_payment"


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def payment(database: Database, script: Script, clock: ManualClock) -> Branch:
    return await payments(database, script, clock)


@pytest.mark.parametrize("order", list(itertools.permutations((ROOM, FLIGHT, CAR)))[::2])
async def test_a_join_runs_with_its_last_event(
    payment: Branch, database: Database, clock: ManualClock, order: tuple
) -> None:
    for event in order:
        await taken(payment, booking(event, clock))

    entries = await log_of(database, "trip-1")
    assert [each.to_state for each in entries] == ["gathering", "gathering", "completed"]
    assert [each.event_type for each in entries] == [type(event).__name__ for event in order]
    assert await paid(database) == ["550 paid"]
    assert await timers(database) == []


async def test_arrivals_of_one_batch_see_each_other(
    payment: Branch, database: Database, clock: ManualClock, script: Script
) -> None:
    await taken(payment, *(booking(event, clock) for event in (ROOM, FLIGHT, ROOM, CAR, FLIGHT)))

    assert await states(database, "trip-1") == ["gathering", "gathering", "completed"]
    assert await notes(database, "trip-1") == []
    assert await timers(database) == []
    assert (await paid(database), script.calls["take_payment"]) == (["550 paid"], 1)


async def test_a_second_event_for_a_slot_changes_nothing(
    payment: Branch, database: Database, clock: ManualClock
) -> None:
    dearer = booking(RoomBooked(trip_id="trip-1", price=999), clock, event_id="another")

    await taken(payment, booking(ROOM, clock))
    await taken(payment, booking(ROOM, clock), dearer, dearer)
    await taken(payment, booking(FLIGHT, clock))
    await taken(payment, booking(CAR, clock))
    await taken(payment, booking(CAR, clock), booking(ROOM, clock), dearer)

    ignored = [each for each in await log_of(database, "trip-1") if each.position is None]
    assert [each.error for each in ignored] == ["RoomBooked came after another event had filled its slot"]
    assert await states(database, "trip-1") == ["gathering", "gathering", "completed"]
    assert await paid(database) == ["550 paid"]


async def test_the_log_keeps_each_arrivals_event(payment: Branch, database: Database, clock: ManualClock) -> None:
    for event in (ROOM, FLIGHT, CAR):
        await taken(payment, booking(event, clock))

    query = text("SELECT event_version, event_body FROM saga_log ORDER BY id")
    async with database.reading() as connection:
        kept = [tuple(row) for row in await connection.execute(query)]
    assert kept == [(1, event.model_dump_json()) for event in (ROOM, FLIGHT, CAR)]


async def test_a_failed_attempt_leaves_the_slot_empty(
    payment: Branch, database: Database, clock: ManualClock, script: Script
) -> None:
    script.plan("take_payment", ValueError("the bank is closed"))
    await taken(payment, booking(ROOM, clock), booking(FLIGHT, clock))

    await taken(payment, booking(CAR, clock))
    before = await log_of(database, "trip-1")
    await taken(payment, booking(CAR, clock, attempt=2))

    assert [(each.to_state, each.position) for each in before] == [
        ("gathering", 1),
        ("gathering", 2),
        ("retrying", None),
    ]
    assert (await states(database, "trip-1"))[-1] == "completed"
    assert await paid(database) == ["550 paid"]


async def test_spent_retries_refuse_the_join(
    payment: Branch, database: Database, clock: ManualClock, script: Script
) -> None:
    script.always("take_payment", ValueError("the bank is closed"), "trip-1")
    await taken(payment, booking(ROOM, clock), booking(FLIGHT, clock))

    for attempt in (1, 2, 3):
        await taken(payment, booking(CAR, clock, attempt=attempt))

    last = (await log_of(database, "trip-1"))[-1]
    assert (last.to_state, last.emitted_type) == ("failed", "PaymentRefused")
    assert "the bank is closed" in str(last.error)
    assert await timers(database) == []


async def test_an_abort_fences_a_join_that_gathers(payment: Branch, database: Database, clock: ManualClock) -> None:
    await taken(payment, booking(ROOM, clock), booking(FLIGHT, clock))
    abort = AbortRequested(saga_type="holiday", saga_id="trip-1", reason="the customer is ill")

    await taken(payment, booking(abort, clock))
    await taken(payment, booking(CAR, clock))

    assert await states(database, "trip-1") == ["gathering", "gathering", "fenced"]
    assert await notes(database, "trip-1") == ["ignored"]
    assert (await paid(database), await timers(database)) == ([], [])


async def test_an_arrival_after_the_end_changes_nothing(
    payment: Branch, database: Database, clock: ManualClock
) -> None:
    await taken(payment, booking(ROOM, clock), booking(FLIGHT, clock))
    ended = SagaEnded(saga_type="holiday", failed=("trip-1",))
    await taken(payment, booking(ended, clock, saga_id=""))

    await taken(payment, booking(CAR, clock))

    assert await states(database, "trip-1") == ["gathering", "gathering"]
    assert await notes(database, "trip-1") == ["ended", "ignored"]
    assert (await paid(database), await timers(database)) == ([], [])


async def test_a_timer_stands_for_the_first_arrivals_deadline(
    payment: Branch, database: Database, clock: ManualClock
) -> None:
    waited = timedelta(minutes=3)
    await taken(payment, booking(ROOM, clock, at=clock.now() - waited))
    await taken(payment, booking(FLIGHT, clock))

    async with database.reading() as connection:
        due = await connection.scalar(text("SELECT due_at FROM saga_outbox WHERE id LIKE 'timer:%'"))
    assert str(due)[:16] == str(clock.now() - waited + PATIENCE)[:16]
    assert await timers(database) == [(TIMER, "RoomBooked")]


async def test_a_timer_refuses_a_join_that_gathers(payment: Branch, database: Database, clock: ManualClock) -> None:
    timer = booking(ROOM, clock, timer="take_payment")
    await taken(payment, booking(ROOM, clock), booking(FLIGHT, clock))
    clock.advance(PATIENCE)

    await taken(payment, timer)
    await taken(payment, timer)

    last = (await log_of(database, "trip-1"))[-1]
    assert (last.to_state, last.emitted_type) == ("failed", "PaymentRefused")
    assert last.error == "its deadline passed; waited for CarBooked (car)"
    assert await notes(database, "trip-1") == []


async def test_a_timer_changes_nothing_else(payment: Branch, database: Database, clock: ManualClock) -> None:
    timers_of = [booking(ROOM, clock, timer=name) for name in ("take_payment", "no_such_step")]
    old = booking(ROOM, clock, at=clock.now() - timedelta(days=900), timer="take_payment")

    await taken(payment, *timers_of, old)
    assert await log_of(database, "trip-1") == []

    await taken(payment, *(booking(event, clock) for event in (ROOM, FLIGHT, CAR)))
    clock.advance(PATIENCE)
    await taken(payment, *timers_of)
    assert await states(database, "trip-1") == ["gathering", "gathering", "completed"]
    assert await notes(database, "trip-1") == []


async def test_a_timer_that_comes_too_early_waits_again(
    payment: Branch, database: Database, clock: ManualClock
) -> None:
    await taken(payment, booking(ROOM, clock))

    await taken(payment, booking(ROOM, clock, timer="take_payment"))

    assert await states(database, "trip-1") == ["gathering"]
    first, again = await timers(database)
    assert (first[0], again[0].startswith(f"{TIMER}@")) == (TIMER, True)


async def test_an_arrival_past_the_deadline_refuses(payment: Branch, database: Database, clock: ManualClock) -> None:
    await taken(payment, booking(ROOM, clock), booking(FLIGHT, clock))
    clock.advance(PATIENCE)

    await taken(payment, booking(CAR, clock))

    last = (await log_of(database, "trip-1"))[-1]
    assert (last.to_state, last.event_type) == ("failed", "CarBooked")
    assert last.error == "its deadline passed; waited for CarBooked (car)"
    assert (await paid(database), await timers(database)) == ([], [])


async def test_a_first_arrival_past_its_deadline_refuses(
    payment: Branch, database: Database, clock: ManualClock
) -> None:
    await taken(payment, booking(ROOM, clock, at=clock.now() - PATIENCE))

    (entry,) = await log_of(database, "trip-1")
    assert (entry.to_state, entry.error) == ("failed", "its deadline had passed when the event arrived")
    assert await timers(database) == []


async def test_another_version_in_the_log_fails_the_attempt(
    payment: Branch, database: Database, clock: ManualClock
) -> None:
    await taken(payment, booking(ROOM, clock), booking(FLIGHT, clock))
    async with database.transaction() as session:
        await (await session.connection()).execute(
            text("UPDATE saga_log SET event_version = 2 WHERE event_type = 'RoomBooked'")
        )

    await taken(payment, booking(CAR, clock))

    last = (await log_of(database, "trip-1"))[-1]
    assert last.to_state == "retrying"
    assert "take_payment has gathered RoomBooked in version 2" in str(last.error)


async def test_an_event_of_another_saga_fills_no_slot(payment: Branch, database: Database, clock: ManualClock) -> None:
    for event in (ROOM, FLIGHT, CAR):
        await taken(payment, booking(event, clock, saga_type="excursion"))

    assert await log_of(database, "trip-1") == []
    assert await paid(database) == []


async def test_an_arrival_that_waits_is_an_outcome(payment: Branch, clock: ManualClock) -> None:
    (step,) = payment.executor.service.steps
    work = payment.executor.begin({})

    JoinTransition(work, step, booking(ROOM, clock)).gathered(deadline=None)

    assert list(work.outcomes()) == ["RoomBooked"]  # so a process that is armed dies at this write, too
