"""The inventory's part in the order saga: reserve the goods, and release them.

A step locks the rows of the stock that it changes, in the order of their skus: no update is lost, and no two steps
deadlock. It checks all before it writes: a refusal that has written nothing costs its batch nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from services.events import (
    InventoryReleased,
    InventoryReservationFailed,
    InventoryReserved,
    Item,
    OrderCreated,
    PaymentFailed,
    PaymentRefunded,
    order_saga,
)
from services.inventory.models import Reservation, ReservationLine, Stock
from toolkit import Participant

inventory = Participant("inventory", saga=order_saga)


@inventory.step(timeout=timedelta(minutes=2))
async def reserve_inventory(
    event: OrderCreated, session: AsyncSession
) -> InventoryReserved | InventoryReservationFailed:
    """Reserve the ordered goods, or refuse and name the missing one."""
    asked = quantities(event.items)
    stock = await held_stock(session, asked)
    for sku, quantity in asked.items():
        if sku not in stock:
            return refusal(event, f"{sku} is not among our goods")
        if not stock[sku].can_reserve(quantity):
            return refusal(event, f"{sku} is short: {quantity} asked for, {stock[sku].on_hand} there")
    reservation = Reservation(order_id=event.order_id)
    session.add(reservation)
    for sku, quantity in asked.items():
        stock[sku].reserve(quantity)
        reservation.lines.append(ReservationLine(order_id=event.order_id, sku=sku, quantity=quantity))
    return InventoryReserved(
        order_id=event.order_id,
        reservation_id=reservation.reservation_id,
        total_amount=sum(stock[sku].unit_price * quantity for sku, quantity in asked.items()),
        payment_method=event.payment_method,
        shipping_address=event.shipping_address,
        customer_email=event.customer_email,
    )


@inventory.compensation(of=reserve_inventory)
async def release_inventory(
    event: PaymentFailed | PaymentRefunded, original: InventoryReserved, session: AsyncSession
) -> InventoryReleased:
    """Release the goods that the order had reserved."""
    reservation = await session.get_one(Reservation, event.order_id)
    stock = await held_stock(session, (line.sku for line in reservation.lines))
    for line in reservation.lines:
        stock[line.sku].release(line.quantity)
    reservation.is_released = True
    return InventoryReleased(order_id=event.order_id, reason=event.reason, customer_email=original.customer_email)


def quantities(items: Iterable[Item]) -> Counter[str]:
    """Return the total quantity of each sku."""
    asked: Counter[str] = Counter()
    for item in items:
        asked[item.sku] += item.quantity
    return asked


async def held_stock(session: AsyncSession, skus: Iterable[str]) -> dict[str, Stock]:
    """Return the current stock of these skus, locked until the transaction ends."""
    statement = select(Stock).where(col(Stock.sku).in_(list(skus))).order_by(col(Stock.sku)).with_for_update()
    # populate_existing: the session may hold a row from before another replica changed it.
    rows = await session.exec(statement, execution_options={"populate_existing": True})
    return {stock.sku: stock for stock in rows}


def refusal(event: OrderCreated, reason: str) -> InventoryReservationFailed:
    """Return the refusal of this order, with the address to which the reason is sent."""
    return InventoryReservationFailed(order_id=event.order_id, reason=reason, customer_email=event.customer_email)
