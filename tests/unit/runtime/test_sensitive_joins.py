"""Sensitive values of each event of a join are redacted where its error is stored."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, NoReturn

from sqlalchemy import text

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from toolkit import Event, Participant, Refusal, RetryPolicy, Saga, SagaId, Sensitive, Service
from toolkit.ids import derived_id
from toolkit.messaging.envelope import Message
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock


class GuestArrived(Event, owner="door"):
    visit_id: SagaId
    passport: Annotated[str, Sensitive] = "P-4711-0815"


class RoomReady(Event, owner="maid"):
    visit_id: SagaId
    code: Annotated[str, Sensitive] = "door-code-99"


class GuestWelcomed(Event, owner="desk", optional=True):
    visit_id: SagaId


class GuestTurnedAway(Refusal, owner="desk", optional=True):
    visit_id: SagaId


visit = Saga(
    name="visit", id_field="visit_id", starts_with=GuestArrived, completes_with=GuestWelcomed,
    fails_with=GuestTurnedAway,
)  # fmt: skip


def received(event: Event, clock: ManualClock, **facts: int) -> Message:
    kind = type(event).__name__
    return message_of(
        event, at=clock.now(), saga_id="v-1", saga_type="visit", event_id=derived_id("visit", "v-1", kind), **facts
    )


async def test_no_event_of_a_join_leaks_into_its_error(database: Database, clock: ManualClock) -> None:
    desk = Participant("desk", saga=visit, retry=RetryPolicy(attempts=2, first_delay=timedelta(milliseconds=1)))

    @desk.step()
    async def welcome(guest: GuestArrived, room: RoomReady) -> GuestWelcomed | GuestTurnedAway:
        leak(guest, room)

    def leak(guest: GuestArrived, room: RoomReady) -> NoReturn:
        raise ValueError(f"{guest.passport} does not open {room.code}")

    branch = Branch(Service(name="desk", participants=[desk]), database, resources={}, clock=clock)
    await branch.executor.execute([received(GuestArrived(visit_id="v-1"), clock)])
    for attempt in (1, 2):
        await branch.executor.execute([received(RoomReady(visit_id="v-1"), clock, attempt=attempt)])

    async with database.reading() as connection:
        errors = list((await connection.execute(text("SELECT error FROM saga_log ORDER BY id"))).scalars())
        sent = [bytes(body) for body in (await connection.execute(text("SELECT body FROM saga_outbox"))).scalars()]
    assert errors[1:] == [
        "ValueError: *** does not open ***",
        "retries spent after 2 attempts: ValueError: *** does not open ***",
    ]
    assert not [body for body in sent if b"reason" in body and (b"4711" in body or b"code-99" in body)]


async def test_no_event_leaks_into_a_commits_error(database: Database, clock: ManualClock) -> None:
    desk = Participant("desk", saga=visit, retry=RetryPolicy(attempts=2, first_delay=timedelta(milliseconds=1)))

    @desk.step()
    async def welcome(guest: GuestArrived, room: RoomReady) -> GuestWelcomed | GuestTurnedAway:
        return GuestWelcomed(visit_id=guest.visit_id)

    branch = Branch(Service(name="desk", participants=[desk]), database, resources={}, clock=clock)
    await branch.executor.execute([received(GuestArrived(visit_id="v-1"), clock)])
    error = ValueError("no row for P-4711-0815 and door-code-99")

    await branch.executor.execute([received(RoomReady(visit_id="v-1"), clock)], commit_error=error)

    async with database.reading() as connection:
        errors = list((await connection.execute(text("SELECT error FROM saga_log ORDER BY id"))).scalars())
    assert errors[1:] == ["ValueError: no row for *** and ***"]
