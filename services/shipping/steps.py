"""Shipping's part in the order saga: ship the goods, and cancel the shipment."""

from __future__ import annotations

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from services.events import (
    NotificationFailed,
    PaymentProcessed,
    ShipmentCancelled,
    ShipmentCreated,
    ShipmentFailed,
    order_saga,
)
from services.shipping.models import Shipment, can_ship_to, tracking_number_for
from toolkit import Participant

shipping = Participant("shipping", saga=order_saga)


@shipping.step(timeout=timedelta(minutes=2))
async def create_shipment(event: PaymentProcessed, session: AsyncSession) -> ShipmentCreated | ShipmentFailed:
    """Ship the paid goods, or refuse with the reason."""
    address = event.shipping_address
    if not can_ship_to(address.country):
        return ShipmentFailed(order_id=event.order_id, reason=f"we do not ship to {address.country}")
    tracking_number = tracking_number_for(event.order_id)
    session.add(Shipment(order_id=event.order_id, tracking_number=tracking_number, **address.model_dump()))
    return ShipmentCreated(
        order_id=event.order_id, tracking_number=tracking_number, customer_email=event.customer_email
    )


@shipping.compensation(of=create_shipment)
async def cancel_shipment(event: NotificationFailed, session: AsyncSession) -> ShipmentCancelled:
    """Cancel the shipment."""
    shipment = await session.get_one(Shipment, event.order_id)
    shipment.cancel()
    return ShipmentCancelled(order_id=event.order_id, reason=event.reason, tracking_number=shipment.tracking_number)
