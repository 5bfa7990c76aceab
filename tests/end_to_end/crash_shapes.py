"""The sagas of the crash matrix: one order by events, parallel branches and their joins, an answer, a coordinator.

Each path is one column of the matrix: the sagas that take it, and the service that is killed on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from examples.travel.accounts import CHECKS as TRAVEL_CHECKS
from examples.travel.events import TripRequested
from services.events import OrderCreated
from tests.example_sagas.approval import Approved, Declined, PurchaseWanted
from toolkit import Event
from toolkit.client.account_checks import AccountCheck
from toolkit.declaration.events import SagaState, documented_example
from toolkit.failpoints import RELAY, WATCH

FORWARD, COMPENSATING = "forward", "compensating"

#: The changes to the documented example of an order that decide its end.
FULFILLED: Mapping[str, object] = {}
DECLINED = {"payment_method": "card_declined"}
NOT_SHIPPED = {"shipping_address": documented_example(OrderCreated)["shipping_address"] | {"country": "AQ"}}
BOUNCED = {"customer_email": "ada@bounce.example"}
#: The payment takes `SLOWNESS` seconds, and holds the saga up meanwhile.
SLOWLY = {"payment_method": "card_slow"}
#: How long a slow payment takes, in seconds: longer than a step here takes to be overdue.
SLOWNESS = 3
IMPATIENT = {"SAGA_OVERDUE_AFTER": "1", "SAGA_WATCH_EVERY": "0.1"}

_ORDER_SERVICES = ("inventory", "payment", "shipping", "notification")
_NO_CALLS = dict.fromkeys(("claimed", "called"), "the service makes no external calls")
_NOTHING_SENT = dict.fromkeys(RELAY, "a gate that waits for events sends none")
_ONLY_CONTROLS = dict.fromkeys(RELAY, "what a coordinator sends on the way back has no direction: requests to undo")
_NOT_OVERDUE = {WATCH[0]: "its overdue step is another path's"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One saga of a cell: the events that a client sends at once, those sent after the restart, and its end."""

    saga_id: str
    end: SagaState
    events: tuple[Event, ...]
    later: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One kind of saga: what `saga run` runs as each service, and how a saga of it is placed.

    - `place`: returns a saga of this id, with these changes.
    - `ends_at`: the services whose logs show the end.
    - `checks`: what has to add up beside the logs; None: the order's goods and money.
    """

    name: str
    services: Mapping[str, str]
    place: Callable[[str, Mapping[str, object]], Placed]
    ends_at: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    checks: Sequence[AccountCheck] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One column of the matrix: the killed service, the way on which it dies, and the sagas that take it.

    - `overdue`: the service that is stopped so that a step is overdue; None: this path's steps never are.
    - `held`: the service that is stopped until the killed one is started again.
    - `unreachable`: why there is no cell, by point.
    """

    name: str
    service: str
    direction: str
    plots: tuple[Mapping[str, object], ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    overdue: str | None = None
    held: str | None = None
    unreachable: Mapping[str, str] = field(default_factory=dict)


def _order(saga_id: str, plot: Mapping[str, object]) -> Placed:
    order = OrderCreated.model_validate(documented_example(OrderCreated) | {"order_id": saga_id} | plot)
    return Placed(saga_id=saga_id, end=end_of(order), events=(order,))


def end_of(order: OrderCreated) -> SagaState:
    """Return the expected end of an order that no step gives up."""
    is_refused = (
        order.payment_method == DECLINED["payment_method"]
        or order.shipping_address.country == "AQ"
        or order.customer_email == BOUNCED["customer_email"]
    )
    return SagaState.FAILED if is_refused else SagaState.COMPLETED


def _asked_order(saga_id: str, plot: Mapping[str, object]) -> Placed:
    """Return an order that a coordinator asks for: it gives a slow payment up."""
    (order,) = _order(saga_id, plot).events
    assert isinstance(order, OrderCreated)
    is_given_up = order.payment_method == SLOWLY["payment_method"]
    return Placed(saga_id=saga_id, end=SagaState.FAILED if is_given_up else end_of(order), events=(order,))


def _trip(saga_id: str, plot: Mapping[str, object]) -> Placed:
    trip = TripRequested.model_validate(documented_example(TripRequested) | {"trip_id": saga_id} | plot)
    return Placed(saga_id=saga_id, end=SagaState.FAILED if plot else SagaState.COMPLETED, events=(trip,))


def _purchase(saga_id: str, plot: Mapping[str, object]) -> Placed:
    """Return a purchase with its answer, which may be given only after the restart."""
    is_declined = plot.get("answer") == "declined"
    answer = Declined(purchase_id=saga_id, why="too dear") if is_declined else Approved(purchase_id=saga_id)
    wanted = PurchaseWanted(purchase_id=saga_id)
    is_late = bool(plot.get("late"))
    return Placed(
        saga_id=saga_id,
        end=SagaState.FAILED if is_declined else SagaState.COMPLETED,
        events=(wanted,) if is_late else (wanted, answer),
        later=(answer,) if is_late else (),
    )


ORDERS = Shape(
    name="orders",
    services={name: name for name in _ORDER_SERVICES},
    place=_order,
    ends_at=("notification",),
    environment={"PAYMENT_GATEWAY_SLOWNESS": str(SLOWNESS)},
)
JOINS = Shape(
    name="joins",
    services={name: f"examples.travel.{name}.app:app" for name in ("hotel", "airline", "car_rental", "agency")},
    place=_trip,
    ends_at=("agency",),
    checks=TRAVEL_CHECKS,
)
ANSWERS = Shape(
    name="answers",
    services={name: f"tests.end_to_end.purchases:{name}" for name in ("quotes", "desk", "buyer")},
    place=_purchase,
    ends_at=("desk", "buyer"),
    checks=(),
)
#: In seconds: else the slow payment replies while the coordinator is away, and the saga completes.
_LONGER_THAN_A_RESTART = 9
COORDINATOR = Shape(
    name="coordinator",
    services={name: f"examples.orchestrated.{name}.app:app" for name in (*_ORDER_SERVICES, "fulfillment")},
    place=_asked_order,
    ends_at=("fulfillment",),
    environment={
        "PAYMENT_GATEWAY_SLOWNESS": str(_LONGER_THAN_A_RESTART),
        "SAGA_ASKED_BY": json.dumps({"order": "fulfillment"}),
    },
)

_BROKE, _NO_CAR, _NO_SEAT = {"traveller": "BROKE"}, {"car": "FULL"}, {"flight": "FULL"}
#: The columns of each shape whose paths differ; a column of an order is a service and a direction.
PATHS: Mapping[str, tuple[Shape, tuple[Path, ...]]] = {
    "joins": (
        JOINS,
        (
            Path(
                name="gathering", service="agency", direction=FORWARD, plots=({},) * 3, held="car_rental",
                unreachable=_NO_CALLS | _NOTHING_SENT | _NOT_OVERDUE,
            ),
            Path(
                name="joined", service="agency", direction=FORWARD, plots=({},) * 3,
                unreachable={"claimed": _NO_CALLS["claimed"], WATCH[0]: "its join ends the saga"},
            ),
            Path(
                name="refused", service="agency", direction=COMPENSATING, plots=(_BROKE, _NO_CAR, _BROKE),
                overdue="hotel",
                unreachable={
                    "claimed": _NO_CALLS["claimed"],
                    "relay-claimed": "the first death, at a gate that waits, leaves no row",
                    WATCH[0]: "a gate without a deadline is not overdue: the branch is, in its own service",
                },
            ),
            Path(name="completed", service="hotel", direction=FORWARD, plots=({},) * 3, overdue="agency"),
            Path(
                name="undone", service="hotel", direction=COMPENSATING, plots=(_NO_SEAT, _NO_CAR, _BROKE),
                overdue="agency",
            ),
        ),
    ),
    "answers": (
        ANSWERS,
        (
            Path(
                name="gathering", service="desk", direction=FORWARD, plots=({"late": True},) * 3,
                unreachable=_NO_CALLS | _NOTHING_SENT | _NOT_OVERDUE,
            ),
            Path(
                name="decided", service="desk", direction=FORWARD, plots=({},) * 3, overdue="buyer",
                unreachable={"claimed": _NO_CALLS["claimed"]},
            ),
            Path(
                name="declined", service="desk", direction=COMPENSATING, plots=({"answer": "declined"},) * 3,
                unreachable={"claimed": _NO_CALLS["claimed"]} | _NOT_OVERDUE,
            ),
        ),
    ),
    "coordinator": (
        COORDINATOR,
        (
            Path(
                name="completed", service="fulfillment", direction=FORWARD, plots=(FULFILLED,) * 3, overdue="shipping",
                unreachable=_NO_CALLS,
            ),
            Path(
                name="refused", service="fulfillment", direction=COMPENSATING, overdue="notification",
                plots=(NOT_SHIPPED, BOUNCED, NOT_SHIPPED), unreachable=_NO_CALLS | _ONLY_CONTROLS,
            ),
            Path(
                name="timed out", service="fulfillment", direction=FORWARD, plots=(SLOWLY,) * 2,
                settings={"SAGA_STEP_TIMEOUTS": json.dumps({"process_payment": "PT0.5S"})}, overdue="notification",
                unreachable=_NO_CALLS,
            ),
        ),
    ),
}  # fmt: skip
