"""Check that budgets are conserved, and that what is ordered was approved: `saga verify`, `saga demo approval`.

No reader sees three databases at one moment. So they are read against the saga's order: what is ordered was approved
before, and what is approved has a reservation from before, both for good.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlmodel import select

from examples.approval.approvals.models import Approval
from examples.approval.events import purchase_saga
from examples.approval.finance.models import BUDGETS_FILE, Department, Reservation
from examples.approval.ordering.models import PurchaseOrder
from toolkit.client.account_checks import CheckResult, SagaStates, reading, url_of
from toolkit.declaration.events import SagaState


async def budgets_are_conserved(databases: Mapping[str, str], _: SagaStates) -> CheckResult:
    """Check that what is available and what is reserved add up to each department's budget, at any moment."""
    available, reserved = await _budgets(databases)
    budgets = {each["name"]: each["available"] for each in json.loads(BUDGETS_FILE.read_text())}
    faults = []
    for department, left in available.items():
        held = sum(each.amount for each in reserved.values() if each.department == department)
        if left < 0 or left + held != budgets[department]:
            faults.append(f"{department} has {left} available and {held} reserved, of {budgets[department]}")
    total = sum(each.amount for each in reserved.values())
    found = "; ".join(faults) or f"{total / 100:.2f} reserved, {sum(available.values()) / 100:.2f} available"
    return CheckResult("available and reserved budgets are the whole budgets", not faults, found)


async def orders_are_approved(databases: Mapping[str, str], states: SagaStates) -> CheckResult:
    """Check that each order is approved and reserved at its price, and that a failed purchase holds nothing."""
    ordered = await _prices("ordering", PurchaseOrder, databases)  # first: what is ordered here is approved below
    approved = await _prices("approvals", Approval, databases)
    _, reservations = await _budgets(databases)
    reserved = {purchase: each.amount for purchase, each in reservations.items()}
    faults = [
        f"{purchase} is ordered for {price}; approved: {approved.get(purchase)}, reserved: {reserved.get(purchase)}"
        for purchase, price in ordered.items()
        if not price == approved.get(purchase) == reserved.get(purchase)
    ]
    for (saga_type, purchase), state in states.items():
        found = [name for name, each in _held(ordered, approved, reserved).items() if purchase in each]
        due = ["ordered", "approved", "reserved"] if state is SagaState.COMPLETED else []
        if saga_type == purchase_saga.name and state and found != due:
            faults.append(f"{purchase} ended {state}, and is {', '.join(found) or 'not ordered'}")
    found_all = "; ".join(faults) or f"{len(ordered)} ordered"
    return CheckResult("what is ordered is approved and reserved, what failed is not", not faults, found_all)


#: The checks that `saga verify` runs beside the toolkit's own invariants; they hold while purchases are under way, too.
CHECKS = (budgets_are_conserved, orders_are_approved)


def _held(*prices: Mapping[str, int]) -> dict[str, Mapping[str, int]]:
    return dict(zip(("ordered", "approved", "reserved"), prices, strict=True))


async def _prices(
    service: str, table: type[Approval] | type[PurchaseOrder], databases: Mapping[str, str]
) -> dict[str, int]:
    """Return the price of each purchase in a service's table."""
    async with reading(url_of(service, databases)) as session:
        rows: Sequence[Any] = (await session.exec(select(table))).all()
    return {each.purchase_id: each.price for each in rows}


async def _budgets(databases: Mapping[str, str]) -> tuple[dict[str, int], dict[str, Reservation]]:
    """Return what is available by department, and the reservations that are kept by purchase, at one moment."""
    both = select(Department, Reservation).join(Reservation, isouter=True)
    async with reading(url_of("finance", databases)) as session:
        rows: Sequence[tuple[Any, Any]] = (await session.exec(both)).all()
    kept = {each.purchase_id: each for _, each in rows if each and not each.is_released}
    return {each.name: each.available for each, _ in rows}, kept
