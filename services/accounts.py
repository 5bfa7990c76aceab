"""Check that goods and money add up after some orders, to the piece and the cent.

Where the orders are known, the expected figures come from them and the price list alone, never from the services' own
sums. `saga verify` knows only how each order ended: it runs `CHECKS`, which compare tables with tables.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from services.events import OrderCreated, order_saga
from services.inventory.models import STOCK_FILE, Reservation, Stock
from services.payment.gateway import Gateway, ledger_url
from services.payment.ledger import charges
from services.payment.models import Payment
from toolkit.client.account_checks import CheckResult, SagaStates, reading, settings_beside, url_of
from toolkit.configuration.settings import Settings
from toolkit.declaration.events import SagaState


async def stock_adds_up(inventory: AsyncSession, fulfilled: Iterable[OrderCreated]) -> CheckResult:
    """Check that no goods are lost, and that exactly those of the fulfilled orders are reserved."""
    stock = (await inventory.exec(select(Stock))).all()
    reserved = +Counter({each.sku: each.reserved for each in stock})
    in_all = {each.sku: each.on_hand + each.reserved for each in stock}
    return CheckResult(
        "what is reserved is what was fulfilled, and no goods are lost",
        holds=reserved == ordered(fulfilled) and in_all == _by_sku("on_hand"),
        found=", ".join(f"{quantity} {sku}" for sku, quantity in sorted(reserved.items())) or "nothing",
    )


async def money_adds_up(gateway: Gateway, fulfilled: Iterable[OrderCreated]) -> CheckResult:
    """Check that the provider holds exactly the price of the fulfilled orders."""
    prices = _by_sku("unit_price")
    owed = sum(prices[sku] * quantity for sku, quantity in ordered(fulfilled).items())
    kept = await gateway.kept()
    return CheckResult(
        "charges less refunds are the price of what was fulfilled",
        holds=kept == owed,
        found=f"{kept / 100:.2f} kept, {owed / 100:.2f} due",
    )


async def reserved_as_ended(databases: Mapping[str, str], states: SagaStates) -> CheckResult:
    """Check that exactly the completed orders hold goods, and that the stock agrees with the reservations."""
    async with reading(url_of("inventory", databases)) as session:
        stock = (await session.exec(select(Stock))).all()
        holding = {
            each.order_id: each.lines for each in await session.exec(select(Reservation)) if not each.is_released
        }
    lines = Counter[str]()
    for line in (line for lines_of_one in holding.values() for line in lines_of_one):
        lines[line.sku] += line.quantity
    initial = _by_sku("on_hand")
    faults = [
        *(f"{each.sku}: {each.reserved} reserved, {lines[each.sku]} in the reservations" for each in stock
          if each.reserved != lines[each.sku]),
        *(f"{each.sku}: {each.on_hand} and {each.reserved} reserved, of {initial.get(each.sku)}" for each in stock
          if each.on_hand + each.reserved != initial.get(each.sku) or min(each.on_hand, each.reserved) < 0),
        *(f"{order} ended {state} and holds goods: {order in holding}" for order, state in _orders(states).items()
          if state and (state is SagaState.COMPLETED) != (order in holding)),
    ]  # fmt: skip
    return CheckResult("exactly the fulfilled orders hold goods, and no goods are lost", not faults, "; ".join(faults))


async def paid_as_ended(
    databases: Mapping[str, str], states: SagaStates, *, settings: Settings | None = None
) -> CheckResult:
    """Check that shop and provider each have exactly the price of every fulfilled order, and no other money."""
    async with reading(url_of("inventory", databases)) as session:
        prices = {each.sku: each.unit_price for each in await session.exec(select(Stock))}
        lines = {each.order_id: each.lines for each in await session.exec(select(Reservation))}
    async with reading(url_of("payment", databases)) as session:
        booked = {each.order_id: each.kept for each in await session.exec(select(Payment))}
    ledger = ledger_url(settings or settings_beside(databases["payment"]))
    async with reading(ledger, variable="PAYMENT_GATEWAY_URL") as session:
        rows = await session.exec(select(charges.c.key, charges.c.taken, charges.c.returned))
        kept = {key: taken - returned for key, taken, returned in rows}
    faults = []
    for order, state in _orders(states).items():
        due = sum(prices[line.sku] * line.quantity for line in lines.get(order, ())) * (state is SagaState.COMPLETED)
        has = booked.get(order, 0), kept.get(f"{order_saga.name}:{order}:process_payment", 0)
        if state and has != (due, due):
            faults.append(f"{order} ended {state}: {due} due, {has[0]} booked, {has[1]} at the provider")
    return CheckResult("shop and provider hold the price of each fulfilled order", not faults, "; ".join(faults))


#: The checks that `saga verify` runs beside the toolkit's own invariants.
CHECKS = (reserved_as_ended, paid_as_ended)


def _orders(states: SagaStates) -> dict[str, SagaState | None]:
    return {saga_id: state for (saga_type, saga_id), state in states.items() if saga_type == order_saga.name}


def ordered(orders: Iterable[OrderCreated]) -> Counter[str]:
    """Return how many of each sku these orders ask for in all."""
    quantities: Counter[str] = Counter()
    for item in (item for order in orders for item in order.items):
        quantities[item.sku] += item.quantity
    return quantities


def _by_sku(column: str) -> dict[str, int]:
    """Return a column of the shop's initial stock, by sku."""
    goods: Sequence[dict[str, Any]] = json.loads(STOCK_FILE.read_text())
    return {each["sku"]: int(each[column]) for each in goods}
