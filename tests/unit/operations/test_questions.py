"""The open questions of a service: the steps that wait for an answer, and for nothing but that."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.driver_statements import recorded
from tests.example_sagas.approval import PATIENCE, Approved, PriceQuoted, QuoteWithdrawn
from tests.example_sagas.loans import NOON
from tests.example_sagas.purchase_desk import NO, QUOTED, YES, desk, incoming, taken, the_desk
from tests.example_sagas.travel import Script
from toolkit.declaration.contract import Contract
from toolkit.operations import questions
from toolkit.operations.questions import open_questions
from toolkit.persistence.database import Database
from toolkit.protocol.question_rows import Question
from toolkit.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


async def listed(database: Database, *, limit: int = 100) -> list[Question]:
    contract = Contract.of(the_desk(Script()))
    async with database.reading() as connection:
        return await open_questions(connection, contract, limit=limit)


async def test_a_question_has_what_was_asked(database: Database, clock: ManualClock) -> None:
    await taken(await desk(database, clock), incoming(QUOTED, clock))

    assert await listed(database) == [
        Question(
            service="desk",
            saga_type="purchase",
            saga_id="desk-1",
            step="decide",
            asked_at=NOON,
            asked_by="PriceQuoted",
            events={"PriceQuoted": {"purchase_id": "desk-1", "price": 800, "iban": "***"}},
            answers=["Approved", "Declined"],
            waits_for="Approved or Declined (answer)",
            deadline=NOON + PATIENCE,
        )
    ]


async def test_a_decided_question_is_not_open(database: Database, clock: ManualClock) -> None:
    await taken(await desk(database, clock), incoming(QUOTED, clock), incoming(NO, clock))

    assert await listed(database) == []


async def test_an_early_answer_is_no_question(database: Database, clock: ManualClock) -> None:
    await taken(await desk(database, clock), incoming(YES, clock))

    assert await listed(database) == []


async def test_a_question_of_an_ended_saga_is_not_open(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    await taken(branch, incoming(QUOTED, clock), incoming(QuoteWithdrawn(purchase_id="desk-1"), clock))

    assert await listed(database) == []


async def test_the_longest_waiting_questions_come_first(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    for number in range(3):
        saga_id = f"desk-{number}"
        quoted = PriceQuoted(purchase_id=saga_id, price=number, iban="")
        await taken(branch, incoming(quoted, clock, saga_id=saga_id, event_id=f"quote-{number}"))
    answer = incoming(Approved(purchase_id="desk-0"), clock, saga_id="desk-0")
    await taken(branch, answer)

    assert [row.saga_id for row in await listed(database)] == ["desk-1", "desk-2"]
    assert [row.saga_id for row in await listed(database, limit=1)] == ["desk-1"]


async def test_joins_without_a_question_hide_none(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "_PAGE", 2)
    branch = await desk(database, clock)
    early = [Approved(purchase_id=f"early-{number}") for number in range(6)]
    answers = [incoming(each, clock, saga_id=each.purchase_id) for each in early]
    await taken(branch, *answers[:3])
    await taken(branch, incoming(QUOTED, clock))
    await taken(branch, *answers[3:])

    assert [row.saga_id for row in await listed(database, limit=1)] == ["desk-1"]
    assert [row.saga_id for row in await listed(database, limit=2)] == ["desk-1"]


async def test_open_questions_are_found_by_an_index(sqlite: Database, clock: ManualClock) -> None:
    await taken(await desk(sqlite, clock), incoming(QUOTED, clock))
    clock.advance(timedelta(hours=1))

    with recorded(sqlite) as statements:
        await listed(sqlite)

    plans: list[str] = []
    async with sqlite.reading() as connection:
        for statement, values in statements:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            plans += [row.detail for row in plan]
    assert "SEARCH saga_log USING INDEX saga_log_gathering (id>?)" in plans
    assert "SCAN saga_log" not in plans
