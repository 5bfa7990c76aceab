"""A step waits for an officer's answer, on every transport: the first answer counts, and the deadline is one, too."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import uvicorn
from pydantic import SecretStr
from sqlalchemy import text

from tests.conformance.operators import ADA, audited
from tests.conformance.world import RabbitWorld, World, message
from tests.eventually import eventually
from tests.example_sagas.approval import PATIENCE, Approved, Declined, PriceQuoted, PurchaseWanted
from toolkit import Event
from toolkit.api import Access, ApiContext, api_routes, application
from toolkit.client.http_client import HttpClient
from toolkit.clock import SystemClock
from toolkit.configuration.tokens import TokenDigest
from toolkit.declaration.contract import Contract
from toolkit.errors import InvalidAnswerError
from toolkit.messaging.envelope import WireMessage
from toolkit.operations import answers
from toolkit.persistence.audit_log import Operator
from toolkit.protocol.question_rows import AnswerOutcome

BOB = Operator("bob@desk", "too dear")
TOKEN = "open-sesame-now"


def wire(event: Event, saga_id: str = "desk-1", **facts: object) -> WireMessage:
    return message(event, saga_id, saga_type="purchase", **facts)


async def asked(world: World, saga_id: str = "desk-1") -> str:
    """Start a purchase, and wait until its question is open."""
    await world.send(wire(PurchaseWanted(purchase_id=saga_id), saga_id))
    await eventually(lambda: world.states("desk", saga_id))
    return saga_id


async def given(world: World, event: Approved | Declined, by: Operator = ADA) -> AnswerOutcome:
    desk = world.runtimes["desk"]
    steps = answers.answers_taken(desk.service)[type(event).__name__]
    facts = {"queue": desk.queue, "now": datetime.now(UTC), "within": timedelta(seconds=30)}
    outcome = await answers.give(desk.database, steps, event.purchase_id, event, by, **facts)
    assert outcome
    return outcome


async def answerers(world: World, saga_id: str = "desk-1") -> list[str]:
    """Return who answered, as the desk's log has it."""
    query = text("SELECT event_by FROM saga_log WHERE saga_id = :saga_id AND event_by IS NOT NULL")
    async with world.runtimes["desk"].database.reading() as connection:
        return list((await connection.execute(query, {"saga_id": saga_id})).scalars())


@asynccontextmanager
async def served(world: World) -> AsyncIterator[HttpClient]:
    """Serve the desk's API beside the running desk; yield a client of it."""
    desk, listener = world.runtimes["desk"], socket.create_server(("127.0.0.1", 0))

    async def readiness() -> dict[str, bool]:
        return {}

    context = ApiContext(
        service=desk.service, contract=Contract.of(desk.service), database=desk.database, readiness=readiness,
        queue=desk.queue, clock=SystemClock(),
    )  # fmt: skip
    api = application(api_routes(context, Access("desk", token=TokenDigest.of(TOKEN))), names=())
    server = uvicorn.Server(uvicorn.Config(api, log_config=None))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    client = HttpClient("desk", f"http://127.0.0.1:{listener.getsockname()[1]}", token=SecretStr(TOKEN))
    try:
        yield client
    finally:
        await client.close()
        server.should_exit = True
        await serving


async def test_an_approved_purchase_is_ordered(purchases: World) -> None:
    await asked(purchases)

    outcome = await given(purchases, Approved(purchase_id="desk-1"))

    assert (outcome.outcome, outcome.decided_by) == ("answered", "ada@desk")
    await eventually(lambda: purchases.effects("buyer", "desk-1"))
    await purchases.quiet()
    assert await answerers(purchases) == ["ada@desk"]
    assert await audited(purchases, "desk") == [("ada@desk", "answer", "the airline is back", "desk-1")]
    assert await purchases.states("quotes", "desk-1") == ["completed", "confirmed"]


async def test_a_declined_purchase_is_undone(purchases: World) -> None:
    await asked(purchases)

    await given(purchases, Declined(purchase_id="desk-1", why="too dear"), BOB)
    await eventually(lambda: purchases.effects("desk", "desk-1"))
    await purchases.quiet()

    assert await purchases.effects("quotes", "desk-1") == ["quoted", "withdrawn"]
    assert (await purchases.effects("desk", "desk-1"), await purchases.effects("buyer", "desk-1")) == (["reported"], [])


async def test_a_clients_early_answer_waits(purchases: World) -> None:
    forged = wire(Approved(purchase_id="desk-1"))
    forged.headers = {**forged.headers, "answered-by": "the boss"}
    await purchases.send(forged)
    await eventually(lambda: purchases.states("desk", "desk-1"))

    await purchases.send(wire(PurchaseWanted(purchase_id="desk-1")))
    await eventually(lambda: purchases.effects("buyer", "desk-1"))

    assert (await purchases.states("desk", "desk-1"))[:2] == ["gathering", "completed"]
    if isinstance(purchases, RabbitWorld):  # the broker verified the login, and the header of a client is not believed
        assert await answerers(purchases) == ["guest"]


async def test_of_two_answers_at_once_one_counts(purchases: World) -> None:
    await asked(purchases)

    outcomes = await asyncio.gather(
        given(purchases, Approved(purchase_id="desk-1"), ADA),
        given(purchases, Declined(purchase_id="desk-1", why="too dear"), BOB),
    )
    await purchases.quiet()

    (winner,) = [each for each in outcomes if each.is_answered]
    (loser,) = [each for each in outcomes if each.is_refused]
    assert (loser.decided_with, loser.decided_by) == (winner.event_type, winner.decided_by)
    assert await answerers(purchases) == [winner.decided_by]
    assert len(await purchases.effects("desk", "desk-1")) == 1


async def test_the_deadline_refuses_without_an_answer(purchases: World) -> None:
    occurred_at = datetime.now(UTC) - PATIENCE + timedelta(seconds=2)
    await purchases.send(wire(PriceQuoted(purchase_id="desk-1", price=8, iban=""), occurred_at=occurred_at))

    async def is_refused() -> bool:
        return (await purchases.states("desk", "desk-1"))[:2] == ["gathering", "failed"]

    await eventually(is_refused, within=60)
    await purchases.send(wire(Approved(purchase_id="desk-1")))
    await purchases.quiet()
    late = await given(purchases, Approved(purchase_id="desk-1"))

    assert late.why
    assert late.why.endswith("its deadline passed; waited for Approved or Declined (answer)")
    assert "ignored" in await purchases.notes("desk", "desk-1")
    assert await purchases.effects("buyer", "desk-1") == []


async def test_a_question_is_answered_over_http(purchases: World) -> None:
    await asked(purchases)

    async with served(purchases) as client:
        (question,) = await client.questions(limit=10)
        with pytest.raises(InvalidAnswerError, match="limit: Input should be a valid integer"):
            await client.answer("desk-1", "Approved", {"limit": "much"}, ADA)
        won = await client.answer("desk-1", "Approved", {"limit": 900}, ADA)
        lost = await client.answer("desk-1", "Declined", {"why": "too dear"}, BOB)
        unknown = await client.answer("dsek-1", "Approved", {}, ADA)
        for name in ("PriceQuoted", "Shrugged"):
            with pytest.raises(InvalidAnswerError, match=f"takes no answer '{name}'; it takes: Approved, Declined"):
                await client.answer("desk-1", name, {}, ADA)
        (answer,) = [entry for entry in (await client.saga("desk-1")).entries if entry.event_by]

        assert (question.saga_id, question.step, question.answers) == ("desk-1", "decide", ["Approved", "Declined"])
        assert question.events == {"PriceQuoted": {"purchase_id": "desk-1", "price": 800, "iban": "***"}}
        assert await client.questions(limit=10) == []
    assert won
    assert (won.outcome, won.decided_with, won.decided_by) == ("answered", "Approved", "ada@desk")
    assert lost
    assert (lost.outcome, lost.decided_by, lost.decided_at) == ("refused", "ada@desk", won.decided_at)
    assert unknown is None
    assert (answer.event_type, answer.event_by) == ("Approved", "ada@desk")


async def test_an_open_question_is_reminded_of_until_it_is_decided(reminding: World) -> None:
    await asked(reminding)

    async def is_reminded_twice() -> bool:
        return (await reminding.notes("desk", "desk-1")).count("reminded") == 2

    await eventually(is_reminded_twice, within=60)
    await given(reminding, Declined(purchase_id="desk-1", why="too dear"), BOB)
    reminders = (await reminding.notes("desk", "desk-1")).count("reminded")
    await reminding.quiet()
    await asyncio.sleep(2)

    assert (await reminding.notes("desk", "desk-1")).count("reminded") == reminders
    async with reminding.runtimes["desk"].database.reading() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM saga_outbox")) == 0
