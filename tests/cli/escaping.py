"""A bakery with a step that raises, in a task within it, what ends an event loop: `how` says which way, `what` what."""

from __future__ import annotations

import asyncio

from toolkit import Event, Participant, Refusal, Saga, SagaId, Service


class BreadOrdered(Event, owner="customer"):
    order_id: SagaId
    how: str
    what: str


class BreadSold(Event, owner="bakery", optional=True):
    order_id: SagaId


class BreadMissed(Refusal, owner="bakery", optional=True):
    order_id: SagaId


saga = Saga(
    name="bread", id_field="order_id", starts_with=BreadOrdered, completes_with=BreadSold, fails_with=BreadMissed
)
bakery_steps = Participant("bakery", saga=saga)


async def fail(what: str) -> None:
    await asyncio.sleep(0)
    raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[what]("out of flour")


@bakery_steps.step()
async def sell_bread(event: BreadOrdered) -> BreadSold:
    if event.how == "wait_for":
        await asyncio.wait_for(fail(event.what), timeout=60)
    elif event.how == "gather":
        await asyncio.gather(fail(event.what), asyncio.Event().wait())
    elif event.how == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(event.what))
            group.create_task(asyncio.Event().wait())
    else:
        await fail(event.what)
    return BreadSold(order_id=event.order_id)


bakery = Service(name="bakery", participants=[bakery_steps])
