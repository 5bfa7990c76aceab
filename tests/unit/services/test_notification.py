import pytest
from sqlmodel import select

from services.events import (
    InventoryReleased,
    InventoryReservationFailed,
    NotificationFailed,
    OrderFailed,
    OrderFulfilled,
    ShipmentCreated,
)
from services.notification.models import Delivery, Message, MessageKind, metadata
from services.notification.steps import notification, send_cancellation_notice, send_confirmation


@pytest.fixture
def tables():
    return metadata


def shipped(customer_email: str = "ada@shop.example") -> ShipmentCreated:
    return ShipmentCreated(order_id="order-1", tracking_number="TRK-1", customer_email=customer_email)


async def test_a_shipped_order_is_confirmed_to_the_customer(session):
    result = await send_confirmation(shipped(), session)
    await session.commit()

    message = await session.get_one(Message, ("order-1", MessageKind.CONFIRMATION))
    assert result == OrderFulfilled(order_id="order-1", tracking_number="TRK-1")
    assert (message.address, message.delivery) == ("ada@shop.example", Delivery.SENT)
    assert "TRK-1" in message.text


@pytest.mark.parametrize("address", ["ada@bounce.example", "Ada@Bounce.Example"])
async def test_a_confirmation_that_bounces_is_a_refusal(session, address):
    result = await send_confirmation(shipped(address), session)

    assert result == NotificationFailed(order_id="order-1", reason="the customer has no such mailbox")
    assert (await session.exec(select(Message))).all() == []


@pytest.mark.parametrize(
    ("address", "delivery"),
    [
        ("ada@shop.example", Delivery.SENT),
        ("ada@bounce.example", Delivery.BOUNCED),
        (None, Delivery.ADDRESS_UNKNOWN),
    ],
)
async def test_an_undeliverable_cancellation_still_ends_the_saga(session, address, delivery):
    event = InventoryReleased(order_id="order-1", reason="the card was declined", customer_email=address)

    result = await send_cancellation_notice(event, session)
    await session.commit()

    message = await session.get_one(Message, ("order-1", MessageKind.CANCELLATION))
    assert result == OrderFailed(order_id="order-1", reason="the card was declined")
    assert (message.address, message.delivery) == (address, delivery)
    assert "the card was declined" in message.text


async def test_an_order_never_reserved_is_cancelled_too(session):
    event = InventoryReservationFailed(order_id="order-1", reason="SOLD-OUT is short: 1 asked for, 0 there")

    result = await send_cancellation_notice(event, session)

    assert result == OrderFailed(order_id="order-1", reason="SOLD-OUT is short: 1 asked for, 0 there")


def test_the_cancellation_notice_never_refuses():
    [_, notice] = notification.steps

    assert not notice.is_refusable
