"""The published language of the order saga: every event on one page, with the service that owns it.

An event carries the data that later services need, since no service reads another's tables. It carries no data that
no later service needs. Refusals and the events of compensations can be built from the order's id and a reason alone,
because they are also emitted for steps that never ran.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from toolkit import Event, Refusal, Saga, SagaId, Sensitive

#: One line of text that any database can store: PostgreSQL takes no NUL, and a label no line break.
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^\P{Cc}+$")]
Sku = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._\-]+$")]
#: Personal data: who a customer is, where they live, or how they pay. It is masked wherever it is shown.
Personal = Annotated[Text, Sensitive]
Email = Annotated[str, StringConstraints(max_length=254, pattern=r"^[^@\s\p{Cc}]+@[^@\s\p{Cc}]+$"), Sensitive]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
#: Money in minor units (cents) of the shop's one currency.
Amount = Annotated[int, Field(ge=0)]


class Item(BaseModel):
    """A quantity of one kind of goods."""

    model_config = ConfigDict(frozen=True)

    sku: Sku
    #: Bounded so that no sum over an order outgrows the databases' integers.
    quantity: int = Field(ge=1, le=1_000_000)


class Address(BaseModel):
    """Where the goods go; `country` is ISO 3166-1 alpha-2."""

    model_config = ConfigDict(frozen=True)

    name: Personal
    street: Personal
    city: Text
    postal_code: Personal
    country: Country


class OrderCreated(Event, owner="order"):
    """A customer has ordered; any client may send it to start the saga."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "order_id": "order-1001",
                    "customer_id": "customer-7",
                    "customer_email": "ada@shop.example",
                    "items": [{"sku": "TEA-POT", "quantity": 1}, {"sku": "TEA-CUP", "quantity": 4}],
                    "payment_method": "card_ok",
                    "shipping_address": {
                        "name": "Ada Lovelace",
                        "street": "12 St James's Square",
                        "city": "London",
                        "postal_code": "SW1Y 4JH",
                        "country": "GB",
                    },
                }
            ]
        }
    )

    order_id: SagaId
    customer_id: Text
    customer_email: Email
    items: tuple[Item, ...] = Field(min_length=1, max_length=100)
    payment_method: Personal
    shipping_address: Address


class InventoryReserved(Event, owner="inventory"):
    """The goods are reserved for the order; `total_amount` is their price."""

    order_id: SagaId
    reservation_id: str
    total_amount: Amount
    payment_method: Personal
    shipping_address: Address
    customer_email: Email


class InventoryReservationFailed(Refusal, owner="inventory"):
    """The goods are not available."""

    order_id: SagaId
    customer_email: Email | None = None


class InventoryReleased(Event, owner="inventory"):
    """The goods are available again."""

    order_id: SagaId
    reason: str = ""
    customer_email: Email | None = None


class PaymentProcessed(Event, owner="payment"):
    """The money is taken."""

    order_id: SagaId
    amount: Amount
    shipping_address: Address
    customer_email: Email


class PaymentFailed(Refusal, owner="payment"):
    """The payment was declined or given up."""

    order_id: SagaId


class PaymentRefunded(Event, owner="payment"):
    """All money that was taken is refunded."""

    order_id: SagaId
    reason: str = ""
    amount: Amount = 0


class ShipmentCreated(Event, owner="shipping"):
    """The goods are on their way."""

    order_id: SagaId
    tracking_number: Text
    customer_email: Email


class ShipmentFailed(Refusal, owner="shipping"):
    """The goods can't be sent to their address."""

    order_id: SagaId


class ShipmentCancelled(Event, owner="shipping"):
    """The goods are called back."""

    order_id: SagaId
    reason: str = ""
    tracking_number: Text | None = None


class NotificationFailed(Refusal, owner="notification"):
    """The customer can't be reached."""

    order_id: SagaId


class OrderFulfilled(Event, owner="notification", optional=True):
    """The order is done and confirmed to the customer: the saga has completed."""

    order_id: SagaId
    tracking_number: Text


class OrderFailed(Event, owner="notification", optional=True):
    """The order was refused and everything is undone: the saga has failed."""

    order_id: SagaId
    reason: str


order_saga = Saga(
    name="order",
    id_field="order_id",
    starts_with=OrderCreated,
    completes_with=OrderFulfilled,
    fails_with=OrderFailed,
)
