"""The approvals desk in the purchase saga: its step waits for the approver's answer, with a deadline and reminders.

The order ends the saga and never refuses, so that nothing has to undo an approval.
"""

from __future__ import annotations

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from examples.approval.approvals.models import Approval
from examples.approval.events import (
    Approved,
    BudgetRefused,
    BudgetReleased,
    BudgetReserved,
    Declined,
    PurchaseApproved,
    PurchaseDenied,
    PurchaseRejected,
    purchase_saga,
)
from toolkit import Participant

approvals = Participant("approvals", saga=purchase_saga)


@approvals.step(timeout=timedelta(days=3), remind=timedelta(days=1))
async def decide_purchase(
    request: BudgetReserved, answer: Approved | Declined, session: AsyncSession
) -> PurchaseApproved | PurchaseDenied:
    """Follow the approver's answer; without one in time, the step refuses with that reason."""
    if isinstance(answer, Declined):
        return PurchaseDenied(purchase_id=request.purchase_id, reason=answer.why)
    session.add(Approval(purchase_id=request.purchase_id, price=request.price, note=answer.note))
    return PurchaseApproved(purchase_id=request.purchase_id, item=request.item, price=request.price)


@approvals.step()
async def report_rejection(event: BudgetRefused | BudgetReleased) -> PurchaseRejected:
    """End the purchase with the reason for the employee, once no budget is reserved for it."""
    return PurchaseRejected(purchase_id=event.purchase_id, reason=event.reason)
