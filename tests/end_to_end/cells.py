"""The crash matrix as data: each cell is a failpoint, a service and a direction, with the orders that reach it.

Unreachable cells are listed, too, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from services.events import OrderCreated
from tests.end_to_end.placed_orders import SERVICES
from toolkit.declaration.events import SagaState, documented_example
from toolkit.failpoints import DIRECTIONS, POINTS
from toolkit.ids import new_id

EMBEDDED = "embedded"

_ANTARCTICA = documented_example(OrderCreated)["shipping_address"] | {"country": "AQ"}
#: The ends of an order, by the changes to the example that cause them.
_FULFILLED: Mapping[str, object] = {}
_DECLINED = {"payment_method": "card_declined"}
_NOT_SHIPPED = {"shipping_address": _ANTARCTICA}
_BOUNCED = {"customer_email": "ada@bounce.example"}
#: The payment takes `SLOWNESS` seconds, and holds the saga up meanwhile.
_SLOWLY = {"payment_method": "card_slow"}

#: How long a slow payment takes, in seconds: longer than a step here takes to be overdue.
SLOWNESS = 3

_IMPATIENT = {"SAGA_OVERDUE_AFTER": "1", "SAGA_WATCH_EVERY": "0.1"}

#: The service to hold up so that a step of the key's service is overdue: the consumer of its event.
_NEXT = {"inventory": "payment", "payment": "shipping", "shipping": "notification"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One crash: its service, failpoint, direction and database; `unreachable` is why there is none.

    - `plots`: the orders, each as its changes to the example.
    - `settings`: further settings with which the service reaches the point.
    - `died_before_at`: the point of an earlier crash that this one needs.
    - `held`: the service that is stopped meanwhile; with `after_payment` only once the payment has begun.
    """

    point: str
    service: str
    direction: str
    database: str
    plots: tuple[Mapping[str, object], ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    died_before_at: str | None = None
    held: str | None = None
    after_payment: bool = False
    unreachable: str | None = None

    def __str__(self) -> str:
        return f"{self.database}-{self.service}-{self.direction}-{self.point}"

    def orders(self) -> list[OrderCreated]:
        """Return fresh orders."""
        example, mark = documented_example(OrderCreated), new_id()[-12:]
        return [
            OrderCreated.model_validate(example | {"order_id": f"order-{mark}-{number}"} | plot)
            for number, plot in enumerate(self.plots)
        ]


def end_of(order: OrderCreated) -> SagaState:
    """Return the expected end of an order."""
    is_refused = (
        order.payment_method == _DECLINED["payment_method"]
        or order.shipping_address.country == "AQ"
        or order.customer_email == _BOUNCED["customer_email"]
    )
    return SagaState.FAILED if is_refused else SagaState.COMPLETED


def column(service: str, database: str) -> list[Cell]:
    """Return the cells of one service: all points in both directions."""
    return [cell(point, service, direction, database) for point in POINTS for direction in DIRECTIONS]


def matrix(databases: tuple[str, ...] = ("sqlite", "postgresql", EMBEDDED)) -> Iterator[Cell]:
    """Yield all cells; in the embedded transport all services are one process, which has one column."""
    for database in databases:
        for service in SERVICES if database != EMBEDDED else (EMBEDDED,):
            yield from column(service, database)


def cell(point: str, service: str, direction: str, database: str) -> Cell:
    """Return the cell at this place."""
    where = {"point": point, "service": service, "direction": direction, "database": database}
    if point in ("claimed", "called") and service not in ("payment", EMBEDDED):
        return Cell(**where, unreachable="only the payment service makes external calls")
    if point == "overdue-found":
        return _overdue(where)
    if point == "relay-claimed":
        # The relay gets its own rows directly; it finds only those that an earlier process left.
        return Cell(**where, plots=_plots(service, direction), died_before_at="committed")
    return Cell(**where, plots=_plots(service, direction))


def _plots(service: str, direction: str) -> tuple[Mapping[str, object], ...]:
    if direction == "forward":
        return (_FULFILLED,) * 3
    # Shipping compensates only after it has completed its step.
    return (_BOUNCED,) * 3 if service == "shipping" else (_NOT_SHIPPED, _BOUNCED, _NOT_SHIPPED)


def _overdue(where: dict[str, str]) -> Cell:
    """Return the cell in which a saga stands still until its step is overdue."""
    match where["service"], where["direction"]:
        case "notification", "forward":
            return Cell(**where, unreachable="its forward step ends the saga, so it never waits for the end")
        case "embedded", "forward":
            return Cell(**where, plots=(_SLOWLY,), settings=_IMPATIENT)
        case "embedded", _:
            plots = (_SLOWLY | _NOT_SHIPPED,)
            return Cell(**where, plots=plots, settings=_IMPATIENT, held="inventory", after_payment=True)
        case service, "forward":
            return Cell(**where, plots=(_FULFILLED,), settings=_IMPATIENT, held=_NEXT[service])
        case "inventory", _:
            return Cell(**where, plots=(_DECLINED,), settings=_IMPATIENT, held="notification")
        case "payment", _:
            return Cell(**where, plots=(_NOT_SHIPPED,), settings=_IMPATIENT, held="notification")
        case _:
            # Both refuse or compensate before the inventory does, which has to have completed its own step by then.
            plots = (_SLOWLY | _BOUNCED,)
            return Cell(**where, plots=plots, settings=_IMPATIENT, held="inventory", after_payment=True)
