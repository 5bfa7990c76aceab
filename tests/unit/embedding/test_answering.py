"""An answer is given with the commit of the application's own transaction, and the first one counts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.example_sagas.loans import BookLent, loan_saga
from tests.example_sagas.purchase_desk import NO, QUEUE, QUOTED, YES, desk, incoming, moves, relayed, taken, the_desk
from tests.example_sagas.travel import Script
from tests.unit.embedding.shop import Base, Order, Sessions, orders_in, sync_session
from toolkit import Participant, Service, answer, answer_sync
from toolkit.clock import SystemClock
from toolkit.embedding.transactions import AnswerRefusedError
from toolkit.errors import InvalidAnswerError
from toolkit.persistence import audit_log, outbox
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

DESK = the_desk(Script())
ADA, BOB = {"service": DESK, "by": "ada@desk", "reason": "within the budget"}, {"service": DESK, "by": "bob@desk"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SystemClock().now())


@pytest.fixture(autouse=True)
async def asked(database: Database, clock: ManualClock) -> None:
    """The desk waits for an answer."""
    await database.create_tables(Base.metadata)
    await taken(await desk(database, clock), incoming(QUOTED, clock))


async def delivered(database: Database, clock: ManualClock) -> None:
    """Deliver the answers that were committed since the test began."""
    clock.advance(timedelta(hours=1))
    await relayed(await desk(database, clock), database, clock)


async def rows(database: Database) -> list[tuple[str, str | None]]:
    async with database.reading() as connection:
        found = [row for row in await outbox.listed(connection) if row.destination and not row.is_timer]
    return [(row.event_type, row.destination) for row in found]


async def audited(database: Database) -> list[tuple[str, str, str]]:
    async with database.reading() as connection:
        return [(row.actor, row.subject, row.reason) for row in await audit_log.listed(connection)]


async def test_a_commit_gives_the_answer(database: Database, team: Sessions, clock: ManualClock) -> None:
    async with team() as session, session.begin():
        session.add(Order(id="desk-1"))
        outcome = await answer(session, YES, **ADA)
    given = await rows(database)
    await delivered(database, clock)

    assert (outcome.step, outcome.outcome, given) == ("decide", "sent", [("Approved", QUEUE)])
    assert (await moves(database))[-1] == ("completed", "Approved", "ada@desk")
    assert await audited(database) == [("ada@desk", "Approved", "within the budget")]
    assert await orders_in(database) == ["desk-1"]


async def test_a_rollback_takes_the_answer_back(database: Database, team: Sessions) -> None:
    async with team() as session:
        session.add(Order(id="desk-1"))
        await answer(session, YES, **ADA)
        await session.rollback()

    assert (await rows(database), await audited(database), await orders_in(database)) == ([], [], [])


async def test_a_savepoint_takes_only_its_answer_back(database: Database, team: Sessions) -> None:
    async with team() as session, session.begin():
        session.add(Order(id="desk-1"))
        async with session.begin_nested() as savepoint:
            await answer(session, YES, **ADA)
            await savepoint.rollback()

    assert (await rows(database), await audited(database), await orders_in(database)) == ([], [], ["desk-1"])


async def test_of_two_contradicting_answers_one_counts(database: Database, team: Sessions, clock: ManualClock) -> None:
    for event, by in ((YES, ADA), (NO, BOB)):
        async with team() as session, session.begin():
            await answer(session, event, **by)
    await delivered(database, clock)

    assert [move for move in await moves(database) if move[1] in ("Approved", "Declined")] == [
        ("completed", "Approved", "ada@desk")
    ]


async def test_an_answer_after_the_decision_is_refused(database: Database, team: Sessions, clock: ManualClock) -> None:
    async with team() as session, session.begin():
        await answer(session, YES, **ADA)
    await delivered(database, clock)

    async with team() as session:
        with pytest.raises(AnswerRefusedError, match="decide was answered with Approved by ada@desk") as refused:
            await answer(session, NO, **BOB)

    assert (refused.value.outcome.decided_by, refused.value.outcome.decided_with) == ("ada@desk", "Approved")
    assert await audited(database) == [("ada@desk", "Approved", "within the budget")]


async def test_a_synchronous_session_answers(database: Database) -> None:
    with sync_session(database) as session, session.begin():
        answer_sync(session, YES, **ADA)

    assert await rows(database) == [("Approved", QUEUE)]


async def test_an_answer_to_an_unknown_saga_is_refused(database: Database, team: Sessions) -> None:
    async with team() as session:
        with pytest.raises(InvalidAnswerError, match="desk knows no saga 'desk-2' in the session's database"):
            await answer(session, YES.model_copy(update={"purchase_id": "desk-2"}), **ADA)


async def test_a_session_of_another_service_is_refused(database: Database, team: Sessions) -> None:
    other = Service(name="counter", participants=DESK.participants, tables=DESK.tables, provides=DESK.provides)
    async with team() as session:
        with pytest.raises(InvalidAnswerError, match="the session is one of the database of counter"):
            await answer(session, YES, service=other, by="ada@desk")


async def test_an_event_that_no_step_awaits_is_refused(database: Database, team: Sessions) -> None:
    wrong: Any = BookLent(loan_id="desk-1")
    library = Service(name="library", participants=[Participant("library", saga=loan_saga)])
    async with team() as session:
        with pytest.raises(InvalidAnswerError, match="desk takes no answer 'BookLent'; it takes: Approved, Declined"):
            await answer(session, wrong, **ADA)
        with pytest.raises(InvalidAnswerError, match="library takes no answer 'Approved'; it takes: none"):
            await answer(session, YES, service=library, by="ada@desk")
