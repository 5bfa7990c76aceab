"""A step reminds of its open question, again and again, until it is decided."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from tests.example_sagas.approval import PATIENCE, PriceQuoted
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.purchase_desk import NO, QUOTED, YES, desk, incoming, taken
from toolkit.declaration.events import AbortRequested, SagaEnded
from toolkit.persistence import saga_log_queries
from toolkit.persistence.database import Database
from toolkit.persistence.schema import as_utc
from toolkit.testing import ManualClock

DAY = timedelta(days=1)
ROW = "timer:saga.desk:purchase:desk-1:decide:reminder-"


@pytest.fixture
async def waiting(database: Database, clock: ManualClock) -> Branch:
    return await desk(database, clock, remind=DAY)


async def set_for(database: Database) -> dict[str, datetime | None]:
    """Return the reminders that are set, by number, each with its time."""
    query = text(f"SELECT id, due_at FROM saga_outbox WHERE id LIKE '{ROW}%'")
    async with database.reading() as connection:
        return {row.id.removeprefix(ROW): as_utc(row.due_at) for row in await connection.execute(query)}


async def reminded(database: Database) -> list[int]:
    """Return the numbers of the reminders that the log notes."""
    async with database.reading() as connection:
        entries = await saga_log_queries.entries(connection, saga_id="desk-1")
    return [entry.attempt for entry in entries if entry.to_state == "reminded"]


def reminder(clock: ManualClock, number: int = 1):
    return incoming(QUOTED, clock, timer="decide", reminder=number)


async def test_a_question_sets_its_reminder(waiting: Branch, database: Database, clock: ManualClock) -> None:
    await taken(waiting, incoming(QUOTED, clock))

    assert await set_for(database) == {"1": clock.now() + DAY}


async def test_a_reminder_is_noted_and_set_again(waiting: Branch, database: Database, clock: ManualClock) -> None:
    await taken(waiting, incoming(QUOTED, clock))
    before = counted()
    clock.advance(DAY)

    await taken(waiting, reminder(clock))

    assert (await reminded(database), counted() - before) == ([1], 1)
    assert (await set_for(database))["2"] == clock.now() + DAY


def counted() -> float:
    labels = {"service": "desk", "saga_type": "purchase", "step": "decide"}
    return REGISTRY.get_sample_value("saga_reminders_total", labels) or 0


async def test_a_copy_of_a_reminder_changes_nothing(waiting: Branch, database: Database, clock: ManualClock) -> None:
    await taken(waiting, incoming(QUOTED, clock))
    clock.advance(DAY)

    await taken(waiting, reminder(clock))
    await taken(waiting, reminder(clock), reminder(clock, 7))
    clock.advance(DAY)
    await taken(waiting, reminder(clock, 2))

    assert await reminded(database) == [1, 2]


@pytest.mark.parametrize("decided", ["answer", "abort", "deadline"])
async def test_a_decided_question_is_not_reminded_of(
    waiting: Branch, database: Database, clock: ManualClock, decided: str
) -> None:
    await taken(waiting, incoming(QUOTED, clock))
    abort = AbortRequested(saga_type="purchase", saga_id="desk-1", reason="no budget")
    clock.advance(PATIENCE if decided == "deadline" else DAY)
    if decided == "deadline":
        await taken(waiting, incoming(QUOTED, clock, timer="decide"))
    else:
        await taken(waiting, incoming(NO if decided == "answer" else abort, clock))

    assert await set_for(database) == {}
    await taken(waiting, reminder(clock))
    assert (await reminded(database), await set_for(database)) == ([], {})


async def test_an_ended_saga_is_not_reminded_of(waiting: Branch, database: Database, clock: ManualClock) -> None:
    await taken(waiting, incoming(QUOTED, clock))
    ended = SagaEnded(saga_type="purchase", failed=("desk-1",))
    await taken(waiting, incoming(ended, clock, saga_id=""))

    await taken(waiting, reminder(clock))

    assert await reminded(database) == []


async def test_an_early_answer_needs_no_reminder(waiting: Branch, database: Database, clock: ManualClock) -> None:
    await taken(waiting, incoming(YES, clock))

    assert await set_for(database) == {}


async def test_a_step_without_remind_sets_none(database: Database, clock: ManualClock) -> None:
    await taken(await desk(database, clock), incoming(PriceQuoted(purchase_id="desk-1", price=1, iban=""), clock))

    assert await set_for(database) == {}


async def test_a_setting_overrides_the_declared_reminder(database: Database, clock: ManualClock) -> None:
    hour = timedelta(hours=1)
    waiting = await desk(database, clock, remind=DAY, reminders={"decide": hour})
    await taken(waiting, incoming(QUOTED, clock))
    assert await set_for(database) == {"1": clock.now() + hour}
    clock.advance(hour)

    await taken(waiting, reminder(clock))

    assert await reminded(database) == [1]
    assert (await set_for(database))["2"] == clock.now() + hour


async def test_no_setting_makes_a_step_remind(database: Database, clock: ManualClock) -> None:
    await taken(await desk(database, clock, reminders={"decide": DAY}), incoming(QUOTED, clock))

    assert await set_for(database) == {}
