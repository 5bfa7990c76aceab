"""The order saga's demonstration, `saga demo`: orders that succeed, and orders that are refused at each step."""

from __future__ import annotations

from services.accounts import money_adds_up, stock_adds_up
from services.events import OrderCreated, order_saga
from services.inventory.app import app as inventory
from services.notification.app import app as notification
from services.payment.app import app as payment
from services.payment.gateway import open_gateway
from services.shipping.app import app as shipping
from toolkit.cli.demonstration import Demo, End, Results, Scenario, run
from toolkit.client.account_checks import CheckResult, reading
from toolkit.declaration.events import SagaState

SERVICES = (inventory, payment, shipping, notification)

COMPLETED, FAILED = SagaState.COMPLETED, SagaState.FAILED

ORDERS = (
    Scenario("demo-fine", "nothing goes wrong", End(COMPLETED)),
    Scenario("demo-sold-out", "the goods are short", End(FAILED), ("items.0.sku=SOLD-OUT",)),
    Scenario("demo-declined", "the card is declined", End(FAILED, ("inventory",)), ("payment_method=card_declined",)),
    Scenario(
        "demo-antarctica",
        "no carrier goes there",
        End(FAILED, ("payment", "inventory")),
        ("shipping_address.country=AQ",),
    ),
    Scenario(
        "demo-bounced",
        "the e-mail bounces",
        End(FAILED, ("shipping", "payment", "inventory")),
        ("customer_email=nobody@bounce.example",),
    ),
    Scenario("demo-flaky", "the card works at last", End(COMPLETED, retries=2), ("payment_method=card_flaky",)),
    Scenario("demo-down", "the card never works", End(FAILED, ("inventory",), 3), ("payment_method=card_down",)),
    Scenario("demo-twice", "it is sent twice", End(COMPLETED), sent=2),
)


async def accounts(results: Results) -> list[CheckResult]:
    """Check that goods and money add up, by the fulfilled orders and the price list."""
    timelines, settings = results.timelines, results.settings
    fulfilled = [each.event(order_saga, OrderCreated) for each in ORDERS if timelines[each.id].state is COMPLETED]
    async with reading(settings.database_for(inventory.name)) as session, open_gateway(settings) as gateway:
        return [await stock_adds_up(session, fulfilled), await money_adds_up(gateway, fulfilled)]


DEMO = Demo(
    package="services",
    directory="demo",
    saga=order_saga,
    services=SERVICES,
    scenarios=ORDERS,
    ledgers=("PAYMENT_GATEWAY_URL",),
    checks=accounts,
    try_next=(
        "ls",
        "trace demo-down",
        "log payment --saga demo-flaky",
        "trigger OrderCreated --set shipping_address.country=AQ --wait 10",
        "graph",
    ),
)


def main() -> int:
    """Run the demonstration; return 0 if every order ended as expected and the accounts add up, else 1."""
    return run(DEMO)
