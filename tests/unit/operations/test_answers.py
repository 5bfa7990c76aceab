"""Answers through the toolkit: one transaction, refused where the step waits no more, and the first one counts."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.example_sagas.approval import (
    PATIENCE,
    Approved,
    PriceQuoted,
    PurchaseApproved,
    QuoteWithdrawn,
    purchase_saga,
)
from tests.example_sagas.loans import NOON
from tests.example_sagas.purchase_desk import (
    ADA,
    BOB,
    NO,
    QUEUE,
    QUOTED,
    YES,
    answered,
    desk,
    incoming,
    moves,
    relayed,
    steps_taking,
    taken,
)
from tests.example_sagas.travel import Script
from tests.unit.persistence.saga_entries import append, entry
from toolkit import Answer, Participant, SagaId
from toolkit.declaration.events import AbortRequested
from toolkit.errors import InvalidAnswerError
from toolkit.operations import answers
from toolkit.persistence import audit_log, outbox
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

SOON = timedelta(milliseconds=50)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


async def sent(database: Database) -> list[tuple[str, str | None]]:
    """Return the answers in the outbox, with their destinations: the step's own messages go to all services."""
    async with database.reading() as connection:
        rows = [row for row in await outbox.listed(connection) if row.destination and not row.is_timer]
    return [(row.event_type, row.destination) for row in rows]


async def audited(database: Database) -> list[tuple[str, str, str, str | None]]:
    async with database.reading() as connection:
        return [(row.actor, row.verb, row.subject, row.saga_id) for row in await audit_log.listed(connection)]


async def test_an_answer_is_sent_and_audited_at_once(database: Database, clock: ManualClock) -> None:
    await taken(await desk(database, clock), incoming(QUOTED, clock))

    outcome = await answered(database, YES, ADA, clock)

    assert (outcome.step, outcome.outcome, outcome.why) == ("decide", "sent", None)
    assert await sent(database) == [("Approved", "saga.desk")]
    assert await audited(database) == [("ada@desk", "answer", "Approved", "desk-1")]


async def test_a_failed_answer_leaves_no_audit(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await taken(await desk(database, clock), incoming(QUOTED, clock))
    unstorable = Operator("ada@desk", None)  # type: ignore[arg-type]  # the audit refuses it

    with pytest.raises(DBAPIError, match=r"(?i)null"):
        await answered(database, YES, unstorable, clock)

    assert (await sent(database), await audited(database)) == ([], [])


async def test_the_log_keeps_who_answered(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    await taken(branch, incoming(QUOTED, clock))
    outcome = await answered(database, YES, ADA, clock)
    await relayed(branch, database, clock)

    assert await moves(database) == [("gathering", "PriceQuoted", None), ("completed", "Approved", "ada@desk")]
    final = await answers.outcome_of(database, steps_taking(YES), YES, outcome, within=SOON)
    assert (final.outcome, final.decided_with, final.decided_by) == ("answered", "Approved", "ada@desk")


async def test_a_login_that_the_broker_verified_is_kept(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    await taken(branch, incoming(QUOTED, clock, sent_by="quotes"))
    await taken(branch, incoming(YES, clock, sent_by="officer"))

    assert await moves(database) == [("gathering", "PriceQuoted", None), ("completed", "Approved", "officer")]


async def test_of_two_answers_the_first_counts(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    await taken(branch, incoming(QUOTED, clock))
    first, second = await answered(database, NO, BOB, clock), await answered(database, YES, ADA, clock)
    await relayed(branch, database, clock)

    lost = await answers.outcome_of(database, steps_taking(YES), YES, second, within=SOON)
    assert (lost.outcome, lost.decided_with, lost.decided_by) == ("refused", "Declined", "bob@desk")
    assert lost.why == "decide was answered with Declined by bob@desk at 2026-05-04 12:00:00Z"
    won = await answers.outcome_of(database, steps_taking(NO), NO, first, within=SOON)
    assert (won.outcome, won.decided_by) == ("answered", "bob@desk")


async def test_a_decided_step_takes_no_answer(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    await taken(branch, incoming(QUOTED, clock), incoming(NO, clock, sent_by="officer"))
    before = await sent(database)

    outcome = await answered(database, YES, ADA, clock)

    assert outcome.is_refused
    assert (outcome.decided_with, outcome.decided_by, outcome.decided_at) == ("Declined", "officer", NOON)
    assert (await sent(database), await audited(database)) == (before, [])


async def test_an_early_answer_waits_in_the_gate(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    await taken(branch, incoming(YES, clock, sent_by="officer"))
    second = await answered(database, NO, BOB, clock)

    await taken(branch, incoming(QUOTED, clock))

    assert second.is_refused
    assert await moves(database) == [("gathering", "Approved", "officer"), ("completed", "PriceQuoted", None)]


async def test_an_answer_to_an_unknown_saga_is_none(database: Database, clock: ManualClock) -> None:
    await desk(database, clock)

    outcome = await answers.answer(
        database, steps_taking(YES), "dsek-1", Approved(purchase_id="dsek-1"), ADA, queue=QUEUE, now=NOON
    )

    assert outcome is None
    assert (await sent(database), await audited(database)) == ([], [])


async def test_an_answer_after_the_deadline_is_refused(database: Database, clock: ManualClock) -> None:
    await taken(await desk(database, clock), incoming(QUOTED, clock))
    clock.advance(PATIENCE)

    outcome = await answered(database, YES, ADA, clock)

    assert outcome.why == "the deadline of decide passed at 2026-05-07 12:00:00Z"
    assert await sent(database) == []


async def test_a_late_answer_of_a_client_decides_nothing(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    await taken(branch, incoming(QUOTED, clock))
    clock.advance(PATIENCE)
    await taken(branch, incoming(YES, clock, sent_by="officer"))

    outcome = await answered(database, NO, ADA, clock)

    assert await moves(database) == [("gathering", "PriceQuoted", None), ("failed", "Approved", None)]
    assert (outcome.decided_by, outcome.why) == (
        None,
        "decide waits no more: it is failed since 2026-05-07 12:00:00Z: "
        "its deadline passed; waited for Approved or Declined (answer)",
    )


async def test_a_fenced_step_takes_no_answer(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    abort = AbortRequested(saga_type="purchase", saga_id="desk-1", reason="no budget")
    await taken(branch, incoming(QUOTED, clock), incoming(abort, clock))

    outcome = await answered(database, YES, ADA, clock)

    assert outcome.why == "decide waits no more: it is fenced since 2026-05-04 12:00:00Z: no budget"


async def test_an_ended_saga_takes_no_answer(database: Database, clock: ManualClock) -> None:
    await taken(await desk(database, clock), incoming(QuoteWithdrawn(purchase_id="desk-1"), clock))

    outcome = await answered(database, YES, ADA, clock)

    assert outcome.why == "the saga has ended (Failed)"


async def test_an_answer_without_its_relay_is_sent(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    await taken(branch, incoming(QUOTED, clock))
    outcome = await answered(database, YES, ADA, clock)

    final = await answers.outcome_of(database, steps_taking(YES), YES, outcome, within=SOON)
    assert (final.outcome, final.why) == (
        "sent",
        "decide has not taken it yet; `saga trace desk-1` shows when it does",
    )


async def test_a_retried_answer_keeps_its_operator(database: Database, clock: ManualClock) -> None:
    script = Script()
    script.plan("decide", ConnectionError("no line"))
    branch = await desk(database, clock, script)
    await taken(branch, incoming(QUOTED, clock))
    await answered(database, YES, ADA, clock)
    await relayed(branch, database, clock)
    assert await moves(database) == [("gathering", "PriceQuoted", None)]

    clock.advance(timedelta(seconds=1))
    await relayed(branch, database, clock)

    assert (await moves(database))[-1] == ("completed", "Approved", "ada@desk")


async def test_a_long_name_fits_into_the_header(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    await taken(branch, incoming(QUOTED, clock))
    await answered(database, YES, Operator("a\u200b" * 250, "fine"), clock)
    await relayed(branch, database, clock)

    assert (await moves(database))[-1][2] == ("a?" * 250)[:255]


async def test_an_answer_keeps_its_own_sagas_deadline(database: Database, clock: ManualClock) -> None:
    await taken(await desk(database, clock), incoming(QUOTED, clock, started_at=NOON))
    other = {"service": "desk", "step": "check", "started_at": NOON - PATIENCE, "traceparent": "00-other"}
    await append(database, entry("desk-1", deadline=NOON - PATIENCE, **other))

    assert (await answered(database, YES, ADA, clock)).outcome == "sent"

    async with database.reading() as connection:
        headers = await connection.scalar(text("SELECT headers FROM saga_outbox WHERE event_type = 'Approved'"))
    sent_with = json.loads(str(headers))
    assert sent_with["started-at"] == NOON.isoformat()
    assert not {"deadline", "traceparent"} & set(sent_with)


async def test_what_follows_keeps_the_sagas_start(database: Database, clock: ManualClock) -> None:
    branch = await desk(database, clock)
    await taken(branch, incoming(QUOTED, clock, started_at=NOON), incoming(YES, clock))

    async with database.reading() as connection:
        headers = await connection.scalar(text("SELECT headers FROM saga_outbox WHERE event_type = 'PurchaseApproved'"))
    assert json.loads(str(headers))["started-at"] == NOON.isoformat()


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"limit": "much"}, "this is no Approved: limit: Input should be a valid integer"),
        ({"limt": 5}, "Approved has no field limt"),
        ({"purchase_id": "desk-2"}, "purchase_id is the id of another saga than desk-1: leave it out"),
    ],
)
def test_wrong_fields_are_refused_with_the_fault(fields: dict[str, object], fault: str) -> None:
    with pytest.raises(InvalidAnswerError, match=fault):
        answers.build(steps_taking(YES), "Approved", "desk-1", fields)


def test_an_unknown_field_within_an_answer_is_refused() -> None:
    class Terms(BaseModel):
        days: int = 30

    class Agreed(Answer, owner="officer"):
        purchase_id: SagaId
        terms: Terms = Terms()

    participant = Participant("desk", saga=purchase_saga)

    async def agree(quoted: PriceQuoted, answer: Agreed) -> PurchaseApproved:
        raise NotImplementedError

    agree.__annotations__["answer"] = Agreed
    participant.step()(agree)

    with pytest.raises(InvalidAnswerError, match=r"Agreed has no field terms\.dais"):
        answers.build(participant.steps, "Agreed", "desk-1", {"terms": {"dais": 5}})


def test_an_answer_is_built_with_the_sagas_id() -> None:
    built = answers.build(steps_taking(YES), "Approved", "desk-1", {"limit": 900})

    assert built == Approved(purchase_id="desk-1", limit=900)
