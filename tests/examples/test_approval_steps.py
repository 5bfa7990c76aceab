"""The purchase's steps on their own, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from examples.approval.approvals import models as approvals
from examples.approval.approvals.steps import decide_purchase, report_rejection
from examples.approval.events import (
    Approved,
    BudgetRefused,
    BudgetReleased,
    BudgetReserved,
    Declined,
    PurchaseApproved,
    PurchaseDenied,
    PurchaseOrdered,
    PurchaseRejected,
    PurchaseRequested,
)
from examples.approval.finance import models as finance
from examples.approval.finance.steps import release_budget, reserve_budget
from examples.approval.ordering import models as ordering
from examples.approval.ordering.steps import place_order

FINANCE, APPROVALS, ORDERING = (
    pytest.mark.parametrize("tables", [models.metadata], ids=[name])
    for name, models in {"finance": finance, "approvals": approvals, "ordering": ordering}.items()
)
RESERVED = BudgetReserved(purchase_id="purchase-1", employee="ADA", department="THRIFTY", item="LATHE", price=450000)


def requested(department: str = "THRIFTY", *, number: int = 1, price: int = 450000) -> PurchaseRequested:
    return PurchaseRequested(
        purchase_id=f"purchase-{number}", employee="ADA", department=department, item="LATHE", price=price
    )


async def available(session: AsyncSession, department: str = "THRIFTY") -> int:
    return (await session.get_one(finance.Department, department, populate_existing=True)).available


@FINANCE
async def test_a_reservation_takes_the_price_from_the_budget(session):
    await finance.seed_departments(session)

    result = await reserve_budget(requested(), session)
    await session.commit()

    assert result == RESERVED
    assert await available(session) == 1000000 - 450000


@FINANCE
@pytest.mark.parametrize(
    ("department", "price", "reason"),
    [
        ("SPENT", 1, "SPENT has 0 left, and the price is 1"),
        ("THRIFTY", 1000001, "THRIFTY has 1000000 left, and the price is 1000001"),
        ("NO-SUCH", 1, "there is no department NO-SUCH"),
    ],
)
async def test_more_than_the_budget_is_refused_by_name(session, department, price, reason):
    await finance.seed_departments(session)

    result = await reserve_budget(requested(department, price=price), session)

    assert result == BudgetRefused(purchase_id="purchase-1", reason=reason)
    assert (await session.exec(select(finance.Reservation))).all() == []


@FINANCE
async def test_a_released_budget_is_available_again(session):
    await finance.seed_departments(session)
    await reserve_budget(requested(), session)
    await session.commit()

    result = await release_budget(PurchaseDenied(purchase_id="purchase-1", reason="too dear"), session)
    await session.commit()

    assert result == BudgetReleased(purchase_id="purchase-1", reason="too dear")
    assert await available(session) == 1000000
    assert (await session.get_one(finance.Reservation, "purchase-1")).is_released


@FINANCE
async def test_concurrent_reservations_never_overspend_a_budget(engine: AsyncEngine):
    async with AsyncSession(engine) as session:
        await finance.seed_departments(session)
        await session.commit()

    async def reserve(number: int) -> bool:
        async with AsyncSession(engine) as session:
            result = await reserve_budget(requested(number=number), session)
            await session.commit()
            return isinstance(result, BudgetReserved)

    assert sum(await asyncio.gather(*(reserve(number) for number in range(10)))) == 2
    async with AsyncSession(engine) as session:
        assert await available(session) == 100000


@APPROVALS
async def test_an_approval_is_written_with_its_note(session):
    result = await decide_purchase(RESERVED, Approved(purchase_id="purchase-1", note="needed"), session)
    await session.commit()

    assert result == PurchaseApproved(purchase_id="purchase-1", item="LATHE", price=450000)
    approval = await session.get_one(approvals.Approval, "purchase-1", populate_existing=True)
    assert (approval.price, approval.note) == (450000, "needed")


@APPROVALS
async def test_a_declined_purchase_is_denied_as_the_approver_says(session):
    result = await decide_purchase(RESERVED, Declined(purchase_id="purchase-1", why="too dear"), session)

    assert result == PurchaseDenied(purchase_id="purchase-1", reason="too dear")
    assert (await session.exec(select(approvals.Approval))).all() == []


@pytest.mark.parametrize("kind", [BudgetRefused, BudgetReleased])
async def test_a_rejection_has_the_first_reason(kind):
    result = await report_rejection(kind(purchase_id="purchase-1", reason="too dear"))

    assert result == PurchaseRejected(purchase_id="purchase-1", reason="too dear")


@ORDERING
async def test_an_order_is_placed_under_its_number(session):
    result = await place_order(PurchaseApproved(purchase_id="purchase-1", item="LATHE", price=450000), session)
    await session.commit()

    order = await session.get_one(ordering.PurchaseOrder, "purchase-1", populate_existing=True)
    assert result == PurchaseOrdered(purchase_id="purchase-1", order_number=order.order_number)
    assert (order.item, order.price) == ("LATHE", 450000)
