"""The toolkit with a payment that calls the outside world: a claim is committed, the call made, its outcome committed.

The gateway answers after twenty milliseconds; its work is not measured here.
"""

from __future__ import annotations

import asyncio
from functools import partial

from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.systems import by_toolkit
from benchmarks.systems.by_toolkit import Effect, NotShipped, Paid, Refunded, Reserved, tables
from benchmarks.systems.process import work
from toolkit import IdempotencyKey, Participant, Service

#: How long the gateway takes, in seconds.
GATEWAY = 0.02

payment = Participant("payment", saga=by_toolkit.saga, external=True)


async def gateway(key: IdempotencyKey) -> None:
    """Take the money, or give it back, under this key."""
    await asyncio.sleep(GATEWAY)


@payment.step()
async def pay(event: Reserved, session: AsyncSession, key: IdempotencyKey) -> Paid:
    """Take the money."""
    await gateway(key)
    session.add(Effect(order_id=event.order_id, amount=1))
    return Paid(order_id=event.order_id, refuse=event.refuse)


@payment.compensation(of=pay)
async def refund(event: NotShipped, original: Paid | None, session: AsyncSession, key: IdempotencyKey) -> Refunded:
    """Give it back."""
    await gateway(key)
    if original:
        session.add(Effect(order_id=event.order_id, amount=-1))
    return Refunded(order_id=event.order_id, reason=event.reason)


SERVICES = by_toolkit.SERVICES | {"payment": Service(name="payment", participants=[payment], tables=tables)}

if __name__ == "__main__":
    work(partial(by_toolkit.run, services=SERVICES))
