"""Finance in the purchase saga: reserve the budget before a person is asked, and release it if they deny."""

from __future__ import annotations

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from examples.approval.events import (
    BudgetRefused,
    BudgetReleased,
    BudgetReserved,
    PurchaseDenied,
    PurchaseRequested,
    purchase_saga,
)
from examples.approval.finance.models import Department, Reservation
from toolkit import Participant

finance = Participant("finance", saga=purchase_saga)


@finance.step(timeout=timedelta(minutes=10))
async def reserve_budget(event: PurchaseRequested, session: AsyncSession) -> BudgetReserved | BudgetRefused:
    """Set the price aside in the department's budget, or refuse if too little is left."""
    # populate_existing: the session may hold a row from before another replica changed it.
    department = await session.get(Department, event.department, with_for_update=True, populate_existing=True)
    if department is None:
        return BudgetRefused(purchase_id=event.purchase_id, reason=f"there is no department {event.department}")
    if department.available < event.price:
        reason = f"{event.department} has {department.available} left, and the price is {event.price}"
        return BudgetRefused(purchase_id=event.purchase_id, reason=reason)
    department.available -= event.price
    session.add(Reservation(purchase_id=event.purchase_id, department=event.department, amount=event.price))
    return BudgetReserved(
        purchase_id=event.purchase_id,
        employee=event.employee,
        department=event.department,
        item=event.item,
        price=event.price,
    )


@finance.compensation(of=reserve_budget)
async def release_budget(event: PurchaseDenied, session: AsyncSession) -> BudgetReleased:
    """Give the department back what was set aside."""
    reservation = await session.get_one(Reservation, event.purchase_id)
    name = reservation.department
    department = await session.get_one(Department, name, with_for_update=True, populate_existing=True)
    department.available += reservation.amount
    reservation.is_released = True
    return BudgetReleased(purchase_id=event.purchase_id, reason=event.reason)
