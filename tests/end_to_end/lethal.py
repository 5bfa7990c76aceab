"""A bakery with an order that kills its process, as the kernel does to one that uses too much memory.

`python -m tests.end_to_end.lethal DATA_DIR` runs it without a broker, with thirty orders; `saga run` runs it with one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from sqlmodel.ext.asyncio.session import AsyncSession

from toolkit import Event, Participant, Refusal, Saga, SagaId, Service, Settings
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.embedded import Embedded


class BreadOrdered(Event, owner="customer"):
    order_id: SagaId
    is_lethal: bool = False


class BreadBaked(Event, owner="bakery"):
    order_id: SagaId
    is_lethal: bool


class BreadSold(Event, owner="bakery", optional=True):
    order_id: SagaId


class BreadMissed(Refusal, owner="bakery", optional=True):
    order_id: SagaId


saga = Saga(
    name="bread", id_field="order_id", starts_with=BreadOrdered, completes_with=BreadSold, fails_with=BreadMissed
)
bakery_steps = Participant("bakery", saga=saga)


@bakery_steps.step()
async def bake_bread(event: BreadOrdered, session: AsyncSession) -> BreadBaked:
    return BreadBaked(order_id=event.order_id, is_lethal=event.is_lethal)


@bakery_steps.step()
async def sell_bread(event: BreadBaked, session: AsyncSession) -> BreadSold:
    if event.is_lethal:
        os.kill(os.getpid(), signal.SIGKILL)
    return BreadSold(order_id=event.order_id)


bakery = Service(name="bakery", participants=[bakery_steps])


def order(number: int, *, is_lethal: bool) -> WireMessage:
    """Return an order as a plain client sends it."""
    body = {"order_id": f"order-{number}", "is_lethal": is_lethal}
    return WireMessage(json.dumps(body).encode(), "customer.BreadOrdered")


async def run(data_dir: Path, orders: list[WireMessage]) -> None:
    """Publish the orders, again after an earlier process died, and wait until all outboxes are empty."""
    async with Embedded([bakery], Settings(data_dir=data_dir)) as embedded:
        await asyncio.gather(*(embedded.publish(each) for each in orders))
        if not await embedded.settled(60):
            sys.exit("not settled in time")


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), [order(number, is_lethal=number == 13) for number in range(30)]))
