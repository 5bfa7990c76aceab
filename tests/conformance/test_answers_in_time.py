"""An answer meets its step's deadline, or an abort: one of them wins, and the saga is done or undone as one."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

from tests.conformance.test_answers import asked, wire
from tests.conformance.world import RabbitWorld, World
from tests.eventually import eventually
from tests.example_sagas.approval import PATIENCE, Approved, PriceQuoted, PurchaseWanted
from tests.races import patience, races, waves
from toolkit.declaration.events import AbortRequested
from toolkit.messaging.envelope import WireMessage
from toolkit.protocol.invariants import violations_of
from toolkit.protocol.timeline import merge

#: How many questions are answered at about the moment of their deadlines.
ROUNDS = 40
#: The deadlines of one wave are so far apart.
APART = timedelta(milliseconds=20)
#: So long before or after its deadline an answer is sent; the message and the timer take a while themselves.
OFF = [timedelta(milliseconds=each) for each in (-60, -40, -20, 0, 20)]


def abort(saga_id: str) -> WireMessage:
    return wire(AbortRequested(saga_type="purchase", saga_id=saga_id, reason="not needed any more"), saga_id)


async def moved(world: World, saga_id: str) -> list[str]:
    """Return the states of the step that waits for the answer."""
    return [each.to_state for each in await world.log("desk", saga_id) if each.step == "decide" and each.position]


async def is_decided(world: World, saga_id: str) -> bool:
    return bool({"completed", "failed", "fenced"} & {*await moved(world, saga_id)})


async def check(world: World, saga_id: str) -> bool:
    """Check the purchase's logs and effects; return whether it was ordered."""
    logs = [await world.log(service.name, saga_id) for service in world.services]
    assert [each.text for each in violations_of(saga_id, merge(logs), answers={"Approved", "Declined"})] == []
    return await all_or_nothing(world, saga_id)


async def all_or_nothing(world: World, saga_id: str) -> bool:
    """Check the purchase's effects; return whether it was ordered."""
    is_completed = "completed" in await moved(world, saga_id)
    assert await world.effects("buyer", saga_id) == (["ordered"] if is_completed else [])
    quoted = await world.effects("quotes", saga_id)
    # The quote may not have begun when its compensation comes: then it is fenced.
    assert quoted == ["quoted"] if is_completed else quoted in ([], ["quoted", "withdrawn"])
    return is_completed


@patience(ROUNDS)
async def test_an_answer_and_the_deadline_never_both_win(purchases: World) -> None:
    world = purchases
    async with world.replica("desk") if isinstance(world, RabbitWorld) else nullcontext():
        for sagas in waves([f"desk-{number}" for number in range(races(ROUNDS))]):
            await race(world, sagas)
            for saga_id in sagas:
                await eventually(lambda saga_id=saga_id: is_decided(world, saga_id), within=60)
            await world.quiet()
            for saga_id in sagas:
                states = await moved(world, saga_id)
                assert states in (["gathering", "completed", "confirmed"], ["gathering", "failed"], ["failed"])
                await all_or_nothing(world, saga_id)


async def race(world: World, sagas: list[str]) -> None:
    """Ask these questions, and answer each at about the moment of its deadline."""
    first = datetime.now(UTC) + timedelta(seconds=2)
    due = {saga_id: first + number * APART for number, saga_id in enumerate(sagas)}
    for saga_id, due_at in due.items():
        quoted = PriceQuoted(purchase_id=saga_id, price=8, iban="")
        await world.send(wire(quoted, saga_id, occurred_at=due_at - PATIENCE))
        await world.send(wire(PurchaseWanted(purchase_id=saga_id), saga_id))
    for number, (saga_id, due_at) in enumerate(due.items()):
        at = due_at + OFF[number % len(OFF)]
        await asyncio.sleep(max((at - datetime.now(UTC)).total_seconds(), 0))
        await world.send(wire(Approved(purchase_id=saga_id), saga_id))


async def test_an_abort_refuses_an_open_question(purchases: World) -> None:
    await asked(purchases)

    await purchases.send(abort("desk-1"))
    await eventually(lambda: is_decided(purchases, "desk-1"))
    await purchases.send(wire(Approved(purchase_id="desk-1")))
    await purchases.quiet()

    assert await moved(purchases, "desk-1") == ["gathering", "fenced"]
    assert await check(purchases, "desk-1") is False


async def test_an_answer_and_an_abort_never_both_win(purchases: World) -> None:
    sagas = [f"desk-{number}" for number in range(10)]
    await asyncio.gather(*(asked(purchases, saga_id) for saga_id in sagas))

    for number, saga_id in enumerate(sagas):
        both = [abort(saga_id), wire(Approved(purchase_id=saga_id), saga_id)]
        await asyncio.gather(*map(purchases.send, both[:: -1 if number % 2 else 1]))
    for saga_id in sagas:
        await eventually(lambda saga_id=saga_id: is_decided(purchases, saga_id))
    await purchases.quiet()

    for saga_id in sagas:
        await check(purchases, saga_id)


async def test_an_abort_after_the_answer_changes_nothing(purchases: World) -> None:
    await asked(purchases)
    await purchases.send(wire(Approved(purchase_id="desk-1")))
    await eventually(lambda: purchases.effects("buyer", "desk-1"))

    await purchases.send(abort("desk-1"))
    await purchases.quiet()

    assert await check(purchases, "desk-1") is True


async def test_an_abort_before_the_question_fences_it(purchases: World) -> None:
    await purchases.send(abort("desk-1"))
    await eventually(lambda: is_decided(purchases, "desk-1"))
    await purchases.send(wire(PurchaseWanted(purchase_id="desk-1")))
    await purchases.send(wire(Approved(purchase_id="desk-1")))
    await purchases.quiet()

    assert await moved(purchases, "desk-1") == ["fenced"]
    assert await check(purchases, "desk-1") is False
