"""The saga log's statements, on both databases: one stream a step, and the key that decides every race."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from tests.example_sagas.loans import NOON, log_of
from toolkit.declaration.encoding import Original
from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.errors import PositionTakenError
from toolkit.persistence import saga_log, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.persistence.saga_ends import close_sagas
from toolkit.persistence.saga_log import Entry, StreamKey
from toolkit.persistence.saga_log_streams import Stream, read_streams
from toolkit.protocol.fence import Note, StepState


def entry(loan_id: str = "loan-1", to: str = "completed", position: int | None = 1, **facts: Any) -> Entry:
    known: dict[str, Any] = {
        "service": "library",
        "saga_id": loan_id,
        "saga_type": "loan",
        "step": "lend_book",
        "position": position,
        "from_state": None,
        "to_state": to,
        "saga_state": SagaState.STARTED,
        "event_id": "event-1",
        "event_type": "BookWanted",
        "at": NOON,
    }
    return Entry(**(known | facts))


async def append(database: Database, *entries: Entry) -> None:
    async with database.transaction() as session:
        await saga_log.append(await session.connection(), entries)


async def streams(database: Database, *loan_ids: str) -> dict[StreamKey, Stream]:
    async with database.reading() as connection:
        return await read_streams(connection, loan_ids)


async def close(database: Database, *, completed: tuple[str, ...] = (), failed: tuple[str, ...] = ()) -> None:
    ended = SagaEnded(saga_type="loan", completed=completed, failed=failed)
    async with database.transaction() as session:
        await close_sagas(await session.connection(), "the end", ended, now=NOON + timedelta(minutes=1))


async def test_a_stream_sums_up_what_was_appended(database: Database) -> None:
    lent = {"emitted_type": "BookLent", "emitted_version": 2, "emitted_body": '{"shelf": 1}'}
    await append(
        database,
        entry(to="executing", position=1, event_id="event-1"),
        entry(to=Note.RETRYING, position=None),
        entry(to="completed", position=2, saga_state=SagaState.PENDING, **lent),
        entry(to="compensating", position=3, event_id="event-2", error="card expired"),
        entry(to=Note.RETRYING, position=None),
        entry(to=Note.RETRYING, position=None),
        entry(to=Note.IGNORED, position=None, saga_state=SagaState.COMPENSATING),
        entry("loan-2", "fenced"),
    )

    both = await streams(database, "loan-1", "loan-2", "loan-2", "loan-3")

    assert both["loan", "loan-1", "lend_book"] == Stream(
        state=StepState.COMPENSATING,
        position=3,
        saga_state=SagaState.COMPENSATING,
        retries=2,
        error="card expired",
        event_ids={"event-1", "event-2"},
        original=Original('{"shelf": 1}', "BookLent", 2),
    )
    assert both["loan", "loan-2", "lend_book"].state is StepState.FENCED
    assert len(both) == 2


async def test_an_entry_that_no_event_caused_leaves_no_event_behind(database: Database) -> None:
    await append(database, entry(event_id=None, event_type=None))

    assert (await streams(database, "loan-1"))["loan", "loan-1", "lend_book"].event_ids == set()


async def test_reading_no_sagas_finds_nothing(database: Database) -> None:
    await append(database)

    assert await streams(database) == {}


async def test_a_position_is_taken_once_and_nothing_of_the_loser_is_appended(database: Database) -> None:
    await append(database, entry(to="fenced"))

    with pytest.raises(PositionTakenError):
        await append(database, entry("loan-2"), entry(to="completed"))

    assert [each.to_state for each in await log_of(database, "loan-1")] == ["fenced"]
    assert await log_of(database, "loan-2") == []


async def test_another_constraint_than_the_fence_is_no_taken_position(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE UNIQUE INDEX one_entry_a_service ON saga_log (service)"))
    await append(database, entry("loan-1"))

    with pytest.raises(IntegrityError):
        await append(database, entry("loan-2"))
    with pytest.raises(IntegrityError):
        await append(database, entry("loan-2", service=None))


async def test_of_twenty_who_take_a_position_at_once_one_wins(database: Database) -> None:
    outcomes = await asyncio.gather(
        *(append(database, entry(event_id=f"event-{number}")) for number in range(20)), return_exceptions=True
    )

    assert [type(each) for each in outcomes].count(PositionTakenError) == 19
    assert len(await log_of(database, "loan-1")) == 1


async def test_there_may_be_any_number_of_notes(database: Database) -> None:
    await append(database, *[entry(to=Note.IGNORED, position=None)] * 3)

    assert len(await log_of(database, "loan-1")) == 3


@pytest.mark.parametrize("last", StepState)
async def test_a_good_end_confirms_what_is_completed_and_nothing_else(database: Database, last: StepState) -> None:
    await append(database, entry(to="executing"), entry(to=last, position=2), entry(to=Note.IGNORED, position=None))

    await close(database, completed=("loan-1",))
    await close(database, completed=("loan-1",))

    states = [each.to_state for each in await log_of(database, "loan-1") if each.position]
    confirmed = ["confirmed"] if last is StepState.COMPLETED else []
    assert states == ["executing", last, *confirmed]


@pytest.mark.parametrize(
    ("last", "error"),
    [
        ("failed", "failed in a saga that ended completed"),
        ("fenced", "fenced in a saga that ended completed"),
        ("compensated", "compensated in a saga that ended completed"),
        ("executing", None),  # what becomes of it says so
        ("compensating", None),
    ],
)
async def test_a_good_end_is_noted_once_where_a_step_stands_against_it(
    database: Database, last: str, error: str | None
) -> None:
    await append(database, entry(to=last))

    await close(database, completed=("loan-1",))
    await close(database, completed=("loan-1",))

    noted = [each for each in await log_of(database, "loan-1") if each.to_state == "ended"]
    assert [(each.error, each.from_state, each.saga_state) for each in noted] == [(error, last, "Completed")]


async def test_a_confirmed_step_says_why_and_when(database: Database) -> None:
    await append(database, entry())

    await close(database, completed=("loan-1",))

    last = (await log_of(database, "loan-1"))[-1]
    assert last.as_row() == {
        "service": "library",
        "saga_id": "loan-1",
        "saga_type": "loan",
        "step": "lend_book",
        "position": 2,
        "from_state": "completed",
        "to_state": "confirmed",
        "saga_state": "Completed",
        "event_id": "the end",
        "event_type": "SagaEnded",
        "emitted_id": None,
        "emitted_type": None,
        "attempt": 1,
        "error": None,
        "at": NOON + timedelta(minutes=1),
    }


@pytest.mark.parametrize(
    ("last", "saga_state", "error"),
    [
        ("completed", SagaState.PENDING, "still completed in a saga that ended failed"),
        ("completed", SagaState.FAILED, None),  # the step that ended the saga itself
        ("compensated", SagaState.COMPENSATING, None),
        ("fenced", SagaState.COMPENSATING, None),
    ],
)
async def test_a_bad_end_is_noted_once_and_marks_what_still_stands(
    database: Database, last: str, saga_state: SagaState, error: str | None
) -> None:
    await append(database, entry(to=last, saga_state=saga_state))

    await close(database, failed=("loan-1",))
    await close(database, failed=("loan-1",))

    noted = [each for each in await log_of(database, "loan-1") if each.to_state == "ended"]
    assert [(each.error, each.from_state, each.saga_state) for each in noted] == [(error, last, "Failed")]


async def test_each_step_of_a_saga_is_closed(database: Database) -> None:
    await append(database, entry(), entry(step="register_loan"), entry("loan-2"), entry("loan-2", step="register_loan"))

    await close(database, completed=("loan-1",), failed=("loan-2",))

    closed = {loan: [each.to_state for each in await log_of(database, loan)] for loan in ("loan-1", "loan-2")}
    assert closed == {
        "loan-1": ["completed", "completed", "confirmed", "confirmed"],
        "loan-2": ["completed", "completed", "ended", "ended"],
    }


async def test_the_end_of_a_saga_that_was_never_here_writes_nothing(database: Database) -> None:
    await append(database, entry())

    await close(database, completed=("loan-8",), failed=("loan-9",))
    await close(database)

    async with database.reading() as connection:
        assert len(await saga_log_queries.entries(connection)) == 1


async def test_readers_see_the_newest_entries_in_their_order(database: Database) -> None:
    await append(database, *(entry(f"loan-{number}") for number in range(5)))

    async with database.reading() as connection:
        newest = await saga_log_queries.entries(connection, limit=2)

    assert [each.saga_id for each in newest] == ["loan-3", "loan-4"]


async def test_sagas_are_listed_by_their_last_move_and_by_state(database: Database) -> None:
    await append(database, entry("loan-1"), entry("loan-2"))
    await append(database, replace(entry("loan-1", "compensated", 2), saga_state=SagaState.COMPENSATING))

    async with database.reading() as connection:
        everything = await saga_log_queries.sagas(connection)
        compensating = await saga_log_queries.sagas(connection, state=SagaState.COMPENSATING)
        newest = await saga_log_queries.sagas(connection, limit=1)

    assert [(each["saga_id"], each["state"]) for each in everything] == [
        ("loan-1", "Compensating"),
        ("loan-2", "Started"),
    ]
    assert [each["saga_id"] for each in compensating] == ["loan-1"]
    assert [each["saga_id"] for each in newest] == ["loan-1"]


async def test_a_deadline_from_another_time_zone_is_kept_as_the_same_moment(database: Database) -> None:
    in_tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    await append(database, entry(deadline=in_tokyo))

    async with database.reading() as connection:
        kept = await connection.scalar(select(saga_log.saga_log.c.deadline))

    assert kept == NOON


async def test_two_types_of_saga_under_one_id_have_a_stream_each(database: Database) -> None:
    await append(database, entry(), entry(saga_type="gift", to="failed"))

    both = await streams(database, "loan-1")

    assert both["loan", "loan-1", "lend_book"].state is StepState.COMPLETED
    assert both["gift", "loan-1", "lend_book"].state is StepState.FAILED


@pytest.mark.parametrize("outcome", ["completed", "failed"])
async def test_the_end_closes_sagas_of_its_own_type_alone(database: Database, outcome: str) -> None:
    await append(database, entry(), entry(saga_type="gift"), entry(saga_type="gift", step="wrap"))

    await close(database, **{outcome: ("loan-1",)})

    written = await log_of(database, "loan-1")
    assert [row.to_state for row in written if row.saga_type == "gift"] == ["completed", "completed"]
    assert len([row for row in written if row.saga_type == "loan"]) == 2


async def test_the_end_of_both_types_is_written_once_for_each(database: Database) -> None:
    await append(database, entry(), entry(saga_type="gift"))
    for saga_type in ("loan", "gift", "gift"):
        async with database.transaction() as session:
            ended = SagaEnded(saga_type=saga_type, failed=("loan-1",))
            await close_sagas(await session.connection(), "the end", ended, now=NOON)

    assert [row.saga_type for row in await log_of(database, "loan-1") if row.to_state == "ended"] == [
        "loan",
        "gift",
    ]
