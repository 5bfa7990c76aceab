"""A replica of the desk, which waits for the officer's answer, and what a test asks of its database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text

from tests.example_sagas import approval
from tests.example_sagas.approval import Approved, Declined, PriceQuoted
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.travel import Script
from toolkit import Event
from toolkit.declaration.participant import Step
from toolkit.declaration.service import Service
from toolkit.ids import derived_id, new_id
from toolkit.messaging.decoding import Decoder
from toolkit.messaging.envelope import Message
from toolkit.operations import answers
from toolkit.persistence import outbox
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.database import Database
from toolkit.protocol.question_rows import AnswerOutcome
from toolkit.testing import ManualClock

ADA, BOB = Operator("ada@desk", "within the budget"), Operator("bob@desk", "too dear")
QUOTED = PriceQuoted(purchase_id="desk-1", price=800, iban="GB33BUKB20201555555555")
YES, NO = Approved(purchase_id="desk-1"), Declined(purchase_id="desk-1", why="too dear")
QUEUE = "saga.desk"


async def desk(
    database: Database, clock: ManualClock, script: Script | None = None, *,
    reminders: Mapping[str, timedelta] | None = None, **facts: Any,
) -> Branch:  # fmt: skip
    """Create the tables, and return a replica of the desk."""
    script = script or Script()
    service = the_desk(script, **facts)
    assert service.tables is not None
    await database.create_tables(service.tables)
    return Branch(service, database, resources={Script: script}, clock=clock, reminders=reminders)


def the_desk(script: Script, **facts: Any) -> Service:
    """Return the desk's declarations."""
    return next(each for each in approval.services(script, **facts) if each.name == "desk")


def incoming(event: Event, clock: ManualClock, *, at: datetime | None = None, **facts: Any) -> Message:
    """Return an event of the purchase as a received message; an answer has a new id, as a client gives it."""
    kind = type(event).__name__
    event_id = new_id() if kind in ("Approved", "Declined") else derived_id("purchase", "desk-1", kind)
    known = {"event_id": event_id, "saga_id": "desk-1", "saga_type": "purchase"}
    return message_of(event, at=at or clock.now(), **(known | facts))


async def taken(branch: Branch, *messages: Message) -> None:
    """Execute these messages as one batch."""
    await branch.executor.execute(messages)


def steps_taking(event: Approved | Declined) -> list[Step]:
    """Return the desk's steps that take this answer."""
    return answers.answers_taken(the_desk(Script()))[type(event).__name__]


async def answered(database: Database, event: Approved | Declined, by: Operator, clock: ManualClock) -> AnswerOutcome:
    """Answer through the toolkit; the desk knows the saga."""
    saga_id = event.purchase_id
    outcome = await answers.answer(database, steps_taking(event), saga_id, event, by, queue=QUEUE, now=clock.now())
    assert outcome
    return outcome


async def relayed(branch: Branch, database: Database, clock: ManualClock) -> None:
    """Deliver what the desk has sent to itself, but for its timers."""
    later = clock.now() + timedelta(days=365)
    async with database.transaction() as session:
        rows = await outbox.claim(await session.connection(), now=clock.now(), until=later, most=100)
    service = the_desk(Script())
    decoder = Decoder(service.consumed(), service.sagas, max_body=10_000)
    await taken(branch, *[decoder.read(row.message, clock) for row in rows if row.destination])


async def moves(database: Database) -> list[tuple[str, str | None, str | None]]:
    """Return the positioned entries of the step: state, event and who answered."""
    query = text(
        "SELECT to_state, event_type, event_by FROM saga_log WHERE step = 'decide' AND position > 0 ORDER BY id"
    )
    async with database.reading() as connection:
        return [tuple(row) for row in await connection.execute(query)]
