"""Orders under drawn faults: goods and money follow each order's end. `make seeds` runs a thousand seeds."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from services.accounts import reserved_as_ended
from services.demo import SERVICES
from services.events import OrderCreated
from services.payment.gateway import Gateway
from tests.simulation.fake_gateway import FakeGateway
from toolkit.testing import SimulatedSagas, sample, simulate

#: Orders that succeed, and orders that are refused by the payment, by shipping and by the notification.
CASES = (
    {},
    {"payment_method": "card_declined"},
    {"shipping_address": {**sample(OrderCreated).shipping_address.model_dump(), "country": "AQ"}},
    {"customer_email": "nobody@bounce.example"},
)


def orders(random: Random) -> list[OrderCreated]:
    return [sample(OrderCreated, order_id="order-1", **random.choice(CASES))]


def goods_and_money_follow(sagas: SimulatedSagas) -> Iterator[str]:
    gateway: FakeGateway = sagas.provided(Gateway)
    gateway.assert_one_effect_per_key()
    is_completed = sagas.states["order", "order-1"] == "Completed"
    ((reserved,),) = sagas.rows("inventory", "SELECT sum(reserved) FROM stock")
    if bool(reserved) != is_completed:
        yield f"{reserved} pieces are reserved, and the order has completed: {is_completed}"
    if bool(gateway.standing) != is_completed:
        yield f"the provider keeps {gateway.standing}, and the order has completed: {is_completed}"


def test_orders_are_whole_under_every_seed(saga_simulation):
    runs = saga_simulation(range(50), SERVICES, orders, provides={Gateway: FakeGateway}, check=goods_and_money_follow)

    assert runs > 0


def test_checks_of_saga_verify_run_in_a_simulation():
    def is_reserved_as_ended(sagas: SimulatedSagas) -> list[str]:
        result = sagas.run(reserved_as_ended(sagas.databases, sagas.states))
        return [] if result.holds else [result.found]

    assert simulate(range(3), SERVICES, orders, provides={Gateway: FakeGateway}, check=is_reserved_as_ended) == 3
