"""The orders that tests place, and the services that they pass through."""

from __future__ import annotations

import json

from services.events import OrderCreated
from toolkit.declaration.events import documented_example
from toolkit.ids import new_id

SERVICES = ("inventory", "payment", "shipping", "notification")


#: For fleets under outages: no step refuses for lateness, so that each order's end is known.
PATIENT = {
    "SAGA_STEP_TIMEOUTS": json.dumps(
        dict.fromkeys(("reserve_inventory", "process_payment", "create_shipment", "send_confirmation"), "PT2H")
    )
}


#: Seven of ten orders are fulfilled, the others are refused at payment, shipping and notification.
_PLOTS: tuple[dict[str, object], ...] = (
    *[{}] * 7,
    {"payment_method": "card_declined"},
    {"shipping_address": documented_example(OrderCreated)["shipping_address"] | {"country": "AQ"}},
    {"customer_email": "nobody@bounce.example"},
)


def orders(count: int) -> list[OrderCreated]:
    """Return so many orders, with three failing ones in ten."""
    mark = new_id()[-12:]
    example = documented_example(OrderCreated)
    return [
        OrderCreated.model_validate(example | {"order_id": f"order-{mark}-{number}"} | _PLOTS[number % len(_PLOTS)])
        for number in range(count)
    ]


def is_bound_to_fail(order: OrderCreated) -> bool:
    """Whether one of the services refuses the order."""
    return (
        order.payment_method != "card_ok"
        or order.shipping_address.country == "AQ"
        or order.customer_email.endswith("bounce.example")
    )
