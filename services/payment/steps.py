"""Payment's part in the order saga: take the money, and refund it.

A provider holds the money, and the service's transaction does not cover it. So each call has the step's idempotency
key, comes before the first use of the session, and may be repeated.
"""

from __future__ import annotations

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from services.events import (
    InventoryReserved,
    PaymentFailed,
    PaymentProcessed,
    PaymentRefunded,
    ShipmentCancelled,
    ShipmentFailed,
    order_saga,
)
from services.payment.gateway import Declined, Gateway
from services.payment.models import Payment
from toolkit import IdempotencyKey, Participant, RetryPolicy

payment = Participant("payment", saga=order_saga)

#: The customer waits for a charge, so it gives up within seconds.
FOR_A_CHARGE = RetryPolicy(attempts=4, first_delay=timedelta(milliseconds=200))
#: A refund has to succeed, and no customer waits for it: it outlasts an outage of some minutes.
FOR_A_REFUND = RetryPolicy(attempts=12, first_delay=timedelta(milliseconds=200))


@payment.step(timeout=timedelta(seconds=30), retry=FOR_A_CHARGE, external=True)
async def process_payment(
    event: InventoryReserved, session: AsyncSession, key: IdempotencyKey, gateway: Gateway
) -> PaymentProcessed | PaymentFailed:
    """Take the money for the reserved goods, or refuse with the provider's reason."""
    answer = await gateway.charge(key, event.total_amount, payment_method=event.payment_method)
    if isinstance(answer, Declined):
        return PaymentFailed(order_id=event.order_id, reason=answer.reason)
    session.add(Payment(order_id=event.order_id, captured=answer.amount))
    return PaymentProcessed(
        order_id=event.order_id,
        amount=answer.amount,
        shipping_address=event.shipping_address,
        customer_email=event.customer_email,
    )


@payment.compensation(of=process_payment, retry=FOR_A_REFUND)
async def refund_payment(
    event: ShipmentFailed | ShipmentCancelled,
    original: PaymentProcessed | None,
    session: AsyncSession,
    key: IdempotencyKey,
    gateway: Gateway,
) -> PaymentRefunded:
    """Refund exactly the taken amount; where the outcome is unknown, void the charge."""
    if original is None:
        await gateway.void(key)
        return PaymentRefunded(order_id=event.order_id, reason=event.reason)
    await gateway.refund(key, original.amount)
    taken = await session.get_one(Payment, event.order_id)
    taken.refund()
    return PaymentRefunded(order_id=event.order_id, reason=event.reason, amount=original.amount)
