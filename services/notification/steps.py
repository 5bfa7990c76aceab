"""Notification's part in the order saga: confirm the order to the customer, or announce its cancellation.

Both steps end the saga, so nothing has to be undone: there is no compensation.
"""

from __future__ import annotations

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from services.events import (
    InventoryReleased,
    InventoryReservationFailed,
    NotificationFailed,
    OrderFailed,
    OrderFulfilled,
    ShipmentCreated,
    order_saga,
)
from services.notification.models import Delivery, Message, MessageKind, deliver
from toolkit import Participant

notification = Participant("notification", saga=order_saga)


@notification.step(timeout=timedelta(minutes=2))
async def send_confirmation(event: ShipmentCreated, session: AsyncSession) -> OrderFulfilled | NotificationFailed:
    """Confirm the shipment to the customer, or refuse if the message can't be delivered."""
    delivery = deliver(event.customer_email)
    if delivery is not Delivery.SENT:
        return NotificationFailed(order_id=event.order_id, reason="the customer has no such mailbox")
    session.add(
        Message(
            order_id=event.order_id,
            kind=MessageKind.CONFIRMATION,
            address=event.customer_email,
            text=f"Your order {event.order_id} is on its way: {event.tracking_number}.",
            delivery=delivery,
        )
    )
    return OrderFulfilled(order_id=event.order_id, tracking_number=event.tracking_number)


@notification.step()
async def send_cancellation_notice(
    event: InventoryReservationFailed | InventoryReleased, session: AsyncSession
) -> OrderFailed:
    """Send the customer the reason of the cancellation; the saga also ends if that can't be delivered."""
    session.add(
        Message(
            order_id=event.order_id,
            kind=MessageKind.CANCELLATION,
            address=event.customer_email,
            text=f"Your order {event.order_id} is cancelled: {event.reason}.",
            delivery=deliver(event.customer_email),
        )
    )
    return OrderFailed(order_id=event.order_id, reason=event.reason)
