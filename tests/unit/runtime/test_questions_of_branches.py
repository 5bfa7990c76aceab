"""A step that joins branches and an answer asks once all branches are in; until then the watch finds what hangs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.purchase_desk import incoming, taken
from toolkit import Answer, Event, Participant, Refusal, Saga, SagaId, Service
from toolkit.declaration.contract import Contract
from toolkit.declaration.events import SagaWaits
from toolkit.operations.questions import open_questions
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

PATIENCE = timedelta(days=14)


class RoomReserved(Event, owner="venue"):
    talk_id: SagaId


class FareReserved(Event, owner="travel"):
    talk_id: SagaId


class Accepted(Answer, owner="chair"):
    talk_id: SagaId


class TalkAccepted(Event, owner="committee", optional=True):
    talk_id: SagaId


class TalkDeclined(Refusal, owner="committee"):
    talk_id: SagaId


talk_saga = Saga(
    name="talk", id_field="talk_id", starts_with=RoomReserved, completes_with=TalkAccepted, fails_with=TalkDeclined
)
committee = Participant("committee", saga=talk_saga)


@committee.step(timeout=PATIENCE)
async def decide(room: RoomReserved, fare: FareReserved, answer: Accepted) -> TalkAccepted | TalkDeclined:
    return TalkAccepted(talk_id=room.talk_id)


SERVICE = Service(name="committee", participants=[committee])
ROOM, FARE, YES = (kind(talk_id="talk-1") for kind in (RoomReserved, FareReserved, Accepted))


@pytest.fixture
async def branch(database: Database, clock: ManualClock) -> Branch:
    return Branch(SERVICE, database, resources={}, clock=clock)


async def receive(branch: Branch, clock: ManualClock, *events: Event) -> None:
    await taken(
        branch,
        *(
            incoming(event, clock, saga_type="talk", saga_id="talk-1", event_id=type(event).__name__)
            for event in events
        ),
    )


async def announcements(branch: Branch) -> int:
    await branch.relay.drain()
    return sum(each.type == SagaWaits.__name__ for each in branch.publisher.taken)


async def asked_by(branch: Branch) -> list[str]:
    async with branch.database.reading() as connection:
        return [each.asked_by for each in await open_questions(connection, Contract.of(SERVICE), limit=10)]


async def test_missing_branch_is_no_question_yet(branch: Branch, clock: ManualClock) -> None:
    await receive(branch, clock, ROOM)

    assert (await announcements(branch), await asked_by(branch)) == (0, [])


async def test_question_opens_with_the_last_branch(branch: Branch, clock: ManualClock) -> None:
    await receive(branch, clock, ROOM, FARE)

    assert (await announcements(branch), await asked_by(branch)) == (1, ["FareReserved"])


async def test_early_answer_hides_no_missing_branch(branch: Branch, clock: ManualClock) -> None:
    await receive(branch, clock, ROOM, YES)

    assert (await announcements(branch), await asked_by(branch)) == (0, [])


async def test_decision_without_an_open_question_is_not_announced(branch: Branch, clock: ManualClock) -> None:
    await receive(branch, clock, ROOM, YES)
    await receive(branch, clock, FARE)

    assert await announcements(branch) == 0
    assert "TalkAccepted" in [each.type for each in branch.publisher.taken]


async def test_decision_of_an_open_question_is_announced(branch: Branch, clock: ManualClock) -> None:
    await receive(branch, clock, ROOM, FARE)
    await receive(branch, clock, YES)

    assert await announcements(branch) == 2
