"""A function receives the arguments that its signature names, and must return an event that it declares."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.loans import BookLent, BookTakenBack, BookWanted, CardRefused, Clerk, loan_saga
from toolkit import Event, IdempotencyKey, Participant
from toolkit.declaration.encoding import Original
from toolkit.errors import StepError
from toolkit.persistence.database import Database
from toolkit.runtime.invocation import Failure, Invocation

WANTED = BookWanted(loan_id="loan-1", shelf=2)
CARD_REFUSED = CardRefused(loan_id="loan-1", reason="expired")


@pytest.fixture
def participant() -> Participant:
    return Participant("library", saga=loan_saga)


async def test_a_step_gets_all_that_it_asks_for(participant: Participant, sqlite: Database) -> None:
    got: dict = {}
    clerk = Clerk()

    @participant.step()
    async def lend(event: BookWanted, session: AsyncSession, key: IdempotencyKey, clerk: Clerk) -> BookLent:
        got.update(event=event, session=session, key=key, clerk=clerk)
        return BookLent(loan_id="loan-1")

    async with sqlite.transaction() as session:
        result = await Invocation({Clerk: clerk}).attempt(
            participant.steps[0], WANTED, session, saga_id="loan-1", original=None
        )

    assert result == BookLent(loan_id="loan-1")
    assert got == {"event": WANTED, "session": session, "key": "loan:loan-1:lend", "clerk": clerk}


async def test_a_plain_step_receives_the_event_alone(participant: Participant, sqlite: Database) -> None:
    @participant.step()
    async def lend(event: BookWanted) -> BookLent:
        return BookLent(loan_id=event.loan_id, shelf=event.shelf)

    async with sqlite.transaction() as session:
        result = await Invocation({}).attempt(participant.steps[0], WANTED, session, saga_id="loan-1", original=None)

    assert result == BookLent(loan_id="loan-1", shelf=2)


@pytest.mark.parametrize(
    ("body", "expected"), [('{"loan_id": "loan-1", "shelf": 2}', BookLent(loan_id="loan-1", shelf=2)), (None, None)]
)
async def test_a_compensation_receives_original_and_key(
    participant: Participant, sqlite: Database, body: str | None, expected: Event | None
) -> None:
    got: list = []

    @participant.step(external=True)
    async def lend(event: BookWanted) -> BookLent: ...

    @participant.compensation(of=lend)
    async def take_back(event: CardRefused, original: BookLent | None, key: IdempotencyKey) -> BookTakenBack:
        got.extend([original, key])
        return BookTakenBack(loan_id="loan-1")

    original = Original(body, "BookLent", 1) if body else None
    async with sqlite.transaction() as session:
        compensation = participant.compensations[0]
        await Invocation({}).attempt(compensation, CARD_REFUSED, session, saga_id="loan-1", original=original)

    assert got == [expected, "loan:loan-1:lend"]


async def test_a_refused_row_fails_the_attempt(participant: Participant, sqlite: Database) -> None:
    from services.payment.models import Payment, metadata

    await sqlite.create_tables(metadata)

    @participant.step()
    async def lend(event: BookWanted, session: AsyncSession) -> BookLent:
        session.add(Payment(order_id="loan-1", captured=1, refunded=2))
        return BookLent(loan_id="loan-1")

    async with sqlite.session() as session:
        result = await Invocation({}).attempt(participant.steps[0], WANTED, session, saga_id="loan-1", original=None)

    assert isinstance(result, Failure)
    assert isinstance(result.error, IntegrityError)


async def test_an_undeclared_result_is_the_steps_error(participant: Participant, sqlite: Database) -> None:
    @participant.step()
    async def lend(event: BookWanted) -> BookLent:
        return None  # type: ignore[return-value]  # what the test is about

    async with sqlite.transaction() as session:
        result = await Invocation({}).attempt(participant.steps[0], WANTED, session, saga_id="loan-1", original=None)

    assert isinstance(result, Failure)
    assert isinstance(result.error, StepError)
    assert str(result.error) == "lend returned None; it declares BookLent: return one of these"


async def test_a_traceback_keeps_its_last_frames(participant: Participant, sqlite: Database) -> None:
    @participant.step()
    async def lend(event: BookWanted) -> BookLent:
        raise RuntimeError("x" * 9_000)

    async with sqlite.transaction() as session:
        result = await Invocation({}).attempt(participant.steps[0], WANTED, session, saga_id="loan-1", original=None)

    assert isinstance(result, Failure)
    assert len(result.traceback()) == 8_000
    assert result.traceback().endswith("x\n")
