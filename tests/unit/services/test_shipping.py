import pytest
from sqlmodel import select

from services.events import (
    NotificationFailed,
    OrderCreated,
    PaymentProcessed,
    ShipmentCancelled,
    ShipmentCreated,
    ShipmentFailed,
)
from services.shipping.models import Shipment, ShipmentStatus, metadata, tracking_number_for
from services.shipping.steps import cancel_shipment, create_shipment
from toolkit.declaration.events import documented_example


@pytest.fixture
def tables():
    return metadata


def paid(country: str = "GB") -> PaymentProcessed:
    return PaymentProcessed(
        order_id="order-1",
        amount=8750,
        shipping_address=documented_example(OrderCreated)["shipping_address"] | {"country": country},
        customer_email="ada@shop.example",
    )


async def test_paid_goods_go_to_the_orders_address(session):
    result = await create_shipment(paid(), session)
    await session.commit()

    shipment = await session.get_one(Shipment, "order-1")
    assert result == ShipmentCreated(
        order_id="order-1", tracking_number=shipment.tracking_number, customer_email="ada@shop.example"
    )
    assert (shipment.name, shipment.city, shipment.status) == ("Ada Lovelace", "London", ShipmentStatus.CREATED)


async def test_a_country_that_is_not_served_is_refused(session):
    result = await create_shipment(paid("AQ"), session)

    assert result == ShipmentFailed(order_id="order-1", reason="we do not ship to AQ")
    assert (await session.exec(select(Shipment))).all() == []


async def test_a_cancelled_shipment_passes_the_reason_on(session):
    created = await create_shipment(paid(), session)
    await session.commit()

    event = NotificationFailed(order_id="order-1", reason="ada@bounce.example does not exist")
    result = await cancel_shipment(event, session)
    await session.commit()

    assert (await session.get_one(Shipment, "order-1", populate_existing=True)).status == ShipmentStatus.CANCELLED
    assert result == ShipmentCancelled(
        order_id="order-1", reason="ada@bounce.example does not exist", tracking_number=created.tracking_number
    )


def test_an_orders_tracking_number_is_stable_and_unique():
    numbers = {tracking_number_for(f"order-{number}") for number in range(1000)}

    assert len(numbers) == 1000
    assert numbers == {tracking_number_for(f"order-{number}") for number in range(1000)}
