"""The saga log's statements, on both databases: one stream per step, and the key that decides every race."""

from __future__ import annotations

import asyncio
from datetime import timedelta, timezone

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from tests.example_sagas.loan_rows import log_of
from tests.example_sagas.loans import NOON
from tests.unit.persistence.saga_entries import append, entry, streams
from toolkit.declaration.encoding import Original
from toolkit.declaration.events import SagaState
from toolkit.errors import PositionTakenError
from toolkit.persistence import saga_log
from toolkit.persistence.database import Database
from toolkit.persistence.saga_log_streams import Stream
from toolkit.protocol.fence import Note, StepState


async def test_a_stream_folds_its_appended_entries(database: Database) -> None:
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


async def test_an_entry_without_event_leaves_no_event_id(database: Database) -> None:
    await append(database, entry(event_id=None, event_type=None))

    assert (await streams(database, "loan-1"))["loan", "loan-1", "lend_book"].event_ids == set()


async def test_reading_no_sagas_finds_nothing(database: Database) -> None:
    await append(database)

    assert await streams(database) == {}


async def test_a_taken_position_rejects_the_whole_append(database: Database) -> None:
    await append(database, entry(to="fenced"))

    with pytest.raises(PositionTakenError):
        await append(database, entry("loan-2"), entry(to="completed"))

    assert [each.to_state for each in await log_of(database, "loan-1")] == ["fenced"]
    assert await log_of(database, "loan-2") == []


async def test_another_constraint_is_no_taken_position(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE UNIQUE INDEX one_entry_a_service ON saga_log (service)"))
    await append(database, entry("loan-1"))

    with pytest.raises(IntegrityError):
        await append(database, entry("loan-2"))
    with pytest.raises(IntegrityError):
        await append(database, entry("loan-2", service=None))


async def test_one_of_twenty_replicas_takes_a_position(database: Database) -> None:
    outcomes = await asyncio.gather(
        *(append(database, entry(event_id=f"event-{number}")) for number in range(20)), return_exceptions=True
    )

    assert [type(each) for each in outcomes].count(PositionTakenError) == 19
    assert len(await log_of(database, "loan-1")) == 1


async def test_there_may_be_any_number_of_notes(database: Database) -> None:
    await append(database, *[entry(to=Note.IGNORED, position=None)] * 3)

    assert len(await log_of(database, "loan-1")) == 3


async def test_a_deadline_keeps_its_moment_across_time_zones(database: Database) -> None:
    in_tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    await append(database, entry(deadline=in_tokyo))

    async with database.reading() as connection:
        kept = await connection.scalar(select(saga_log.saga_log.c.deadline))

    assert kept == NOON


async def test_two_types_under_one_id_have_own_streams(database: Database) -> None:
    await append(database, entry(), entry(saga_type="gift", to="failed"))

    both = await streams(database, "loan-1")

    assert both["loan", "loan-1", "lend_book"].state is StepState.COMPLETED
    assert both["gift", "loan-1", "lend_book"].state is StepState.FAILED
