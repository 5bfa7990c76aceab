import pytest
from pydantic import ValidationError

from services.events import (
    InventoryReleased,
    InventoryReservationFailed,
    NotificationFailed,
    OrderCreated,
    OrderFailed,
    OrderFulfilled,
    PaymentFailed,
    PaymentRefunded,
    ShipmentCancelled,
    ShipmentFailed,
    order_saga,
)
from services.inventory.app import app as inventory
from services.notification.app import app as notification
from services.payment.app import app as payment
from services.shipping.app import app as shipping
from toolkit.declaration.events import documented_example

SERVICES = [inventory, payment, shipping, notification]
WAY_BACK = [
    InventoryReservationFailed,
    InventoryReleased,
    PaymentFailed,
    PaymentRefunded,
    ShipmentFailed,
    ShipmentCancelled,
    NotificationFailed,
]


def order_with(**changes) -> dict:
    return documented_example(OrderCreated) | changes


def test_the_documented_example_order_is_valid():
    example = documented_example(OrderCreated)

    order = OrderCreated.model_validate(example)

    assert order.model_dump(mode="json") == example


@pytest.mark.parametrize("event", WAY_BACK)
def test_compensation_events_need_id_and_reason_only(event):
    built = order_saga.build(event, saga_id="order-1", reason="aborted by the operator")

    assert (built.order_id, built.reason) == ("order-1", "aborted by the operator")


@pytest.mark.parametrize(
    "changes",
    [
        {"items": []},
        {"items": [{"sku": "TEA-POT", "quantity": 0}]},
        {"items": [{"sku": "", "quantity": 1}]},
        {"items": [{"sku": "TEA-POT", "quantity": 10**9}]},
        {"customer_email": "nobody"},
        {"customer_id": "x" * 201},
        {"payment_method": "card\x00ok"},
        {"shipping_address": documented_example(OrderCreated)["shipping_address"] | {"country": "Britain"}},
        {"order_id": "has a space"},
    ],
)
def test_an_unusable_order_is_not_an_order(changes):
    with pytest.raises(ValidationError):
        OrderCreated.model_validate(order_with(**changes))


def test_each_event_is_emitted_by_its_owner():
    emitted = {event: app.name for app in SERVICES for part in app.participants for event in part.emitted()}

    assert emitted == {event: event.__owner__ for event in emitted}


def test_each_event_is_consumed_or_optional():
    emitted = {event for app in SERVICES for part in app.participants for event in part.emitted()}

    consumed = {event for app in SERVICES for event in app.consumed()}

    assert emitted - consumed == {OrderFulfilled, OrderFailed}
    assert consumed - emitted == {OrderCreated}
    assert all(event.__optional__ for event in emitted - consumed)


def test_each_service_has_tables_of_its_own():
    owned = [set(app.tables.tables) for app in SERVICES]

    assert owned == [{"stock", "reservation", "reservation_line"}, {"payment"}, {"shipment"}, {"message"}]
