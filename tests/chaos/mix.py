"""The sagas of the other shapes beside the orders, each with the ends that it may have.

The gift of an order has the order's id. A trip has three branches, a purchase waits for a person's answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from examples.approval.events import Approved, Declined, purchase_saga
from examples.transfer.events import transfer_saga
from examples.travel.events import trip_saga
from tests.chaos.shop.gifts import GiftOrdered, gift_saga
from tests.chaos.shop.hosted import DEADLINE
from toolkit import Event, Saga
from toolkit.declaration.events import documented_example

COMPLETED, FAILED = frozenset({"Completed"}), frozenset({"Failed"})
EITHER = COMPLETED | FAILED
#: The offers have a thousand places each; trips after so many may find none.
_TRIPS_WITH_A_PLACE = 1_200


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """One saga: its first event, the ends that it may have, and by seconds after its start the answers to it."""

    saga: Saga
    id: str
    event: Event
    ends: frozenset[str]
    answers: Sequence[tuple[float, Event]] = ()


#: Returns the saga that is started beside the order of this id; the number counts those of its kind.
Kind = Callable[[str, int], Started]


def gift(order_id: str, number: int) -> Started:
    """Return a gift under the order's own id; every second one is unwanted."""
    is_wanted = number % 2 == 1
    event = GiftOrdered(order_id=order_id, is_wanted=is_wanted)
    return Started(saga=gift_saga, id=order_id, event=event, ends=COMPLETED if is_wanted else FAILED)


def trip(order_id: str, number: int) -> Started:
    """Return a trip; half of them fail, in each branch, in two, or at the payment."""
    plots: tuple[dict[str, str], ...] = (
        {"hotel": "FULL"},
        {},
        {"flight": "FULL"},
        {},
        {"hotel": "FULL", "car": "FULL"},
        {},
        {"traveller": "BROKE"},
        {},
        {"car": "FULL"},
        {},
    )
    changes = plots[number % len(plots)]
    ends = FAILED if changes else COMPLETED if number < _TRIPS_WITH_A_PLACE else EITHER
    return Started(saga=trip_saga, id=f"trip-{order_id}", event=_example(trip_saga, order_id, changes), ends=ends)


def transfer(order_id: str, number: int) -> Started:
    """Return a transfer; half of them fail, at each step."""
    plots: tuple[dict[str, str], ...] = (
        {"sender": "EMPTY"},
        {},
        {"scheme": "pigeon"},
        {"scheme": "flaky"},
        {"receiver": "CLOSED"},
        {},
    )
    changes = plots[number % len(plots)]
    event = _example(transfer_saga, order_id, changes)
    fails = changes and "flaky" not in changes.values()
    return Started(saga=transfer_saga, id=f"transfer-{order_id}", event=event, ends=FAILED if fails else COMPLETED)


def purchase(order_id: str, number: int) -> Started:
    """Return a purchase with its answers: yes, no, both, none, late ones, and one that is not asked for.

    An outage may be longer than the deadline. So what is approved may end either way.
    """
    purchase_id, dice = f"purchase-{order_id}", random.Random(order_id)
    yes, no = Approved(purchase_id=purchase_id), Declined(purchase_id=purchase_id, why="too dear")
    soon, near = dice.uniform(0, 10), DEADLINE.total_seconds() + dice.uniform(-5, 5)
    plots: tuple[tuple[dict[str, Any], frozenset[str], Sequence[tuple[float, Event]]], ...] = (
        ({}, EITHER, [(soon, yes)]),
        ({}, FAILED, [(soon, no)]),
        ({}, EITHER, [(soon, yes), (dice.uniform(0, 10), no)]),
        ({}, FAILED, []),
        ({}, EITHER, [(near, yes)]),
        ({"department": "SPENT"}, FAILED, [(soon, yes)]),
    )
    changes, ends, answers = plots[number % len(plots)]
    event = _example(purchase_saga, order_id, changes)
    return Started(saga=purchase_saga, id=purchase_id, event=event, ends=ends, answers=answers)


#: Each kind of saga, and the number of orders to one of it.
MIX: Mapping[Kind, int] = {gift: 3, trip: 8, transfer: 8, purchase: 8}
GIFTS: Mapping[Kind, int] = {gift: 3}
SAGAS = (gift_saga, trip_saga, transfer_saga, purchase_saga)


def per_order(mix: Mapping[Kind, int]) -> float:
    """Return how many sagas there are to an order, the order included."""
    return 1 + sum(1 / every for every in mix.values())


def _example(saga: Saga, order_id: str, changes: Mapping[str, Any]) -> Event:
    """Return the documented starting event of a saga, with an id after the order's."""
    own = {saga.id_field: f"{saga.name}-{order_id}"}
    return saga.starts_with.model_validate(documented_example(saga.starts_with) | own | dict(changes))
