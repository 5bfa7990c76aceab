"""The end of a saga is written once after each of its steps, and notes the steps that contradict it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.example_sagas.loan_rows import log_of
from tests.example_sagas.loans import NOON
from tests.unit.persistence.saga_entries import append, close, entry
from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.persistence import saga_log_queries
from toolkit.persistence.database import Database
from toolkit.persistence.saga_ends import close_sagas, ends_of
from toolkit.protocol.fence import Note, StepState


@pytest.mark.parametrize("last", StepState)
async def test_a_completed_saga_confirms_only_completed_steps(database: Database, last: StepState) -> None:
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
        ("executing", None),  # its outcome shows a contradiction
        ("compensating", None),
    ],
)
async def test_a_completed_saga_notes_a_contradiction_once(database: Database, last: str, error: str | None) -> None:
    await append(database, entry(to=last))

    await close(database, completed=("loan-1",))
    await close(database, completed=("loan-1",))

    noted = [each for each in await log_of(database, "loan-1") if each.to_state == "ended"]
    assert [(each.error, each.from_state, each.saga_state) for each in noted] == [(error, last, "Completed")]


async def test_a_confirmed_step_names_its_event_and_time(database: Database) -> None:
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
async def test_a_failed_saga_notes_each_steps_end_once(
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


async def test_the_end_of_an_unknown_saga_writes_nothing(database: Database) -> None:
    await append(database, entry())

    await close(database, completed=("loan-8",), failed=("loan-9",))
    await close(database)

    async with database.reading() as connection:
        assert len(await saga_log_queries.entries(connection)) == 1


@pytest.mark.parametrize("outcome", ["completed", "failed"])
async def test_an_end_closes_its_own_type_only(database: Database, outcome: str) -> None:
    await append(database, entry(), entry(saga_type="gift"), entry(saga_type="gift", step="wrap"))

    await close(database, **{outcome: ("loan-1",)})

    written = await log_of(database, "loan-1")
    assert [row.to_state for row in written if row.saga_type == "gift"] == ["completed", "completed"]
    assert len([row for row in written if row.saga_type == "loan"]) == 2


async def test_the_end_of_each_type_is_written_once(database: Database) -> None:
    await append(database, entry(), entry(saga_type="gift"))
    for saga_type in ("loan", "gift", "gift"):
        async with database.transaction() as session:
            ended = SagaEnded(saga_type=saga_type, failed=("loan-1",))
            await close_sagas(await session.connection(), ends_of([("the end", ended)], at=NOON))

    assert [row.saga_type for row in await log_of(database, "loan-1") if row.to_state == "ended"] == [
        "loan",
        "gift",
    ]
