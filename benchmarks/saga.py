"""The saga that every system runs: reserve, pay, ship, tell; where nobody ships there, refund, release, apologize.

Each service has a database of its own and writes one row of its own a step, +1 for what it did and -1 for what it
undid, so that one query tells afterwards whether a system was not only fast but right.
"""

from __future__ import annotations

from dataclasses import dataclass

SERVICES = ("stock", "payment", "shipping", "mail")
START = "client.Placed"
COMPLETED, FAILED = "mail.Told", "mail.Apologized"
ENDS = (COMPLETED, FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What a service does on one event: its step, the row that it writes, and the event that follows."""

    service: str
    hears: str
    step: str
    emits: str
    amount: int = 1
    undoes: bool = False
    refuses_with: str | None = None


ROUTES = (
    Route(service="stock", hears=START, step="reserve", emits="stock.Reserved"),
    Route(service="payment", hears="stock.Reserved", step="pay", emits="payment.Paid"),
    Route(
        service="shipping",
        hears="payment.Paid",
        step="ship",
        emits="shipping.Shipped",
        refuses_with="shipping.NotShipped",
    ),
    Route(service="mail", hears="shipping.Shipped", step="tell", emits=COMPLETED),
    Route(
        service="payment",
        hears="shipping.NotShipped",
        step="pay",
        emits="payment.Refunded",
        amount=-1,
        undoes=True,
    ),
    Route(service="stock", hears="payment.Refunded", step="reserve", emits="stock.Released", amount=-1, undoes=True),
    Route(service="mail", hears="stock.Released", step="apologize", emits=FAILED),
)

#: What each service did for an order that is shipped, and for one that nobody ships: the sum and the number of rows.
_SHIPPED = {"stock": (1, 1), "payment": (1, 1), "shipping": (1, 1), "mail": (1, 1)}
_REFUSED = {"stock": (0, 2), "payment": (0, 2), "shipping": (0, 0), "mail": (1, 1)}

DEEDS = """
SELECT count(*) AS rows, coalesce(sum(amount), 0) AS total, count(DISTINCT order_id) AS orders
FROM deed
"""


@dataclass(frozen=True, slots=True)
class Deeds:
    """What a service's table says was done, in all."""

    rows: int
    total: int


def violations(done: dict[str, Deeds], *, shipped: int, refused: int) -> list[str]:
    """Return what is wrong with the services' tables after so many orders of either kind."""
    wrong = []
    for service, deeds in done.items():
        total = _SHIPPED[service][0] * shipped + _REFUSED[service][0] * refused
        rows = _SHIPPED[service][1] * shipped + _REFUSED[service][1] * refused
        if (deeds.total, deeds.rows) != (total, rows):
            wrong.append(f"{service}: {deeds.rows} rows that sum up to {deeds.total}; right are {rows} and {total}")
    return wrong
