"""The saga that every system runs: reserve, pay, ship, tell; a refused order: refund, release, apologize.

Each service has a database of its own and writes one row of its own a step, +1 for a step and -1 for a compensation:
one query a service checks afterwards that a system was not only fast but right.
"""

from __future__ import annotations

from dataclasses import dataclass

SERVICES = ("stock", "payment", "shipping", "mail")
START = "client.Placed"
COMPLETED, FAILED = "mail.Told", "mail.Apologized"
ENDS = (COMPLETED, FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A service's step on one event: the row that it writes, and the event that follows."""

    service: str
    consumes: str
    step: str
    emits: str
    amount: int = 1
    undoes: bool = False
    refuses_with: str | None = None


ROUTES = (
    Route(service="stock", consumes=START, step="reserve", emits="stock.Reserved"),
    Route(service="payment", consumes="stock.Reserved", step="pay", emits="payment.Paid"),
    Route(
        service="shipping",
        consumes="payment.Paid",
        step="ship",
        emits="shipping.Shipped",
        refuses_with="shipping.NotShipped",
    ),
    Route(service="mail", consumes="shipping.Shipped", step="tell", emits=COMPLETED),
    Route(
        service="payment",
        consumes="shipping.NotShipped",
        step="pay",
        emits="payment.Refunded",
        amount=-1,
        undoes=True,
    ),
    Route(service="stock", consumes="payment.Refunded", step="reserve", emits="stock.Released", amount=-1, undoes=True),
    Route(service="mail", consumes="stock.Released", step="apologize", emits=FAILED),
)

#: The sum and the number of each service's rows for an order that is shipped, and for one that is refused.
_SHIPPED = {"stock": (1, 1), "payment": (1, 1), "shipping": (1, 1), "mail": (1, 1)}
_REFUSED = {"stock": (0, 2), "payment": (0, 2), "shipping": (0, 0), "mail": (1, 1)}

EFFECTS = """
SELECT count(*) AS rows, coalesce(sum(amount), 0) AS total, count(DISTINCT order_id) AS orders
FROM effect
"""


@dataclass(frozen=True, slots=True)
class Effects:
    """The number and the sum of all rows of a service's own table."""

    rows: int
    total: int


def violations(done: dict[str, Effects], *, shipped: int, refused: int) -> list[str]:
    """Return what is wrong with the services' tables after these numbers of shipped and refused orders."""
    wrong = []
    for service, effects in done.items():
        total = _SHIPPED[service][0] * shipped + _REFUSED[service][0] * refused
        rows = _SHIPPED[service][1] * shipped + _REFUSED[service][1] * refused
        if (effects.total, effects.rows) != (total, rows):
            wrong.append(f"{service}: {effects.rows} rows that sum up to {effects.total}; right are {rows} and {total}")
    return wrong
