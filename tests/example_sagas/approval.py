"""A saga for tests: a purchase is quoted, an officer decides, and then it is ordered, or the quote is withdrawn.

The officer's answer comes from outside: no step emits it. The test scripts each step, as in the trips.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from tests.example_sagas.travel import QUICK, Script, effects_table, write
from toolkit import Answer, Event, Participant, Refusal, Saga, SagaId, Sensitive, Service, Settings

#: How long the desk waits for the officer.
PATIENCE = timedelta(days=3)


class PurchaseWanted(Event, owner="employee"):
    purchase_id: SagaId
    what: str = "a desk"


class PriceQuoted(Event, owner="quotes"):
    purchase_id: SagaId
    price: int
    iban: Annotated[str, Sensitive]


class QuoteWithdrawn(Event, owner="quotes"):
    purchase_id: SagaId
    reason: str = ""


class Approved(Answer, owner="officer"):
    purchase_id: SagaId
    limit: int = 1000
    note: str = ""


class Declined(Answer, owner="officer"):
    purchase_id: SagaId
    why: str


class PurchaseApproved(Event, owner="desk"):
    purchase_id: SagaId
    limit: int = 0


class PurchaseRefused(Refusal, owner="desk"):
    purchase_id: SagaId


class PurchaseOrdered(Event, owner="buyer", optional=True):
    purchase_id: SagaId


class PurchaseFailed(Event, owner="desk", optional=True):
    purchase_id: SagaId
    reason: str = ""


purchase_saga = Saga(
    name="purchase", id_field="purchase_id", starts_with=PurchaseWanted, completes_with=PurchaseOrdered,
    fails_with=PurchaseFailed,
)  # fmt: skip


def services(script: Script, *, patience: timedelta = PATIENCE, remind: timedelta | None = None) -> list[Service]:
    """Return the three services, which follow this script."""

    @asynccontextmanager
    async def the_script(_: Settings) -> AsyncIterator[Script]:
        yield script

    parts = {"quotes": _quotes(), "desk": _desk(patience, remind), "buyer": _buyer()}
    return [
        Service(name=name, participants=[participant], tables=effects.metadata, provides={Script: the_script})
        for name, (participant, effects) in parts.items()
    ]


def _quotes() -> tuple[Participant, Table]:
    quotes, effects = Participant("quotes", saga=purchase_saga, retry=QUICK), effects_table()

    @quotes.step()
    async def quote(event: PurchaseWanted, session: AsyncSession) -> PriceQuoted:
        await write(session, effects, event.purchase_id, "quoted")
        return PriceQuoted(purchase_id=event.purchase_id, price=800, iban="GB33BUKB20201555555555")

    @quotes.compensation(of=quote)
    async def withdraw_quote(event: PurchaseRefused, session: AsyncSession) -> QuoteWithdrawn:
        await write(session, effects, event.purchase_id, "withdrawn")
        return QuoteWithdrawn(purchase_id=event.purchase_id, reason=event.reason)

    return quotes, effects


def _desk(patience: timedelta, remind: timedelta | None) -> tuple[Participant, Table]:
    desk, effects = Participant("desk", saga=purchase_saga, retry=QUICK), effects_table()

    @desk.step(timeout=patience, remind=remind)
    async def decide(
        quote: PriceQuoted, answer: Approved | Declined, session: AsyncSession, script: Script
    ) -> PurchaseApproved | PurchaseRefused:
        await script.play("decide", quote.purchase_id)
        if isinstance(answer, Declined):
            return PurchaseRefused(purchase_id=quote.purchase_id, reason=answer.why)
        if quote.price > answer.limit:
            return PurchaseRefused(purchase_id=quote.purchase_id, reason=f"{quote.price} is more than {answer.limit}")
        await write(session, effects, quote.purchase_id, f"{quote.price} approved")
        return PurchaseApproved(purchase_id=quote.purchase_id, limit=answer.limit)

    @desk.step()
    async def report(event: QuoteWithdrawn, session: AsyncSession) -> PurchaseFailed:
        await write(session, effects, event.purchase_id, "reported")
        return PurchaseFailed(purchase_id=event.purchase_id, reason=event.reason)

    return desk, effects


def _buyer() -> tuple[Participant, Table]:
    buyer, effects = Participant("buyer", saga=purchase_saga, retry=QUICK), effects_table()

    @buyer.step()
    async def order(event: PurchaseApproved, session: AsyncSession) -> PurchaseOrdered:
        await write(session, effects, event.purchase_id, "ordered")
        return PurchaseOrdered(purchase_id=event.purchase_id)

    return buyer, effects
