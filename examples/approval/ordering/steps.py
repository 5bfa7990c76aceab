"""Ordering in the purchase saga: the last step, which nothing undoes."""

from __future__ import annotations

from sqlmodel.ext.asyncio.session import AsyncSession

from examples.approval.events import PurchaseApproved, PurchaseOrdered, purchase_saga
from examples.approval.ordering.models import PurchaseOrder
from toolkit import Participant

ordering = Participant("ordering", saga=purchase_saga)


@ordering.step()
async def place_order(event: PurchaseApproved, session: AsyncSession) -> PurchaseOrdered:
    """Place the order."""
    order = PurchaseOrder(purchase_id=event.purchase_id, item=event.item, price=event.price)
    session.add(order)
    return PurchaseOrdered(purchase_id=event.purchase_id, order_number=order.order_number)
