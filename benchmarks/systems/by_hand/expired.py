"""The limit of a backlog: a loop that refuses expired orders, one statement a batch, an entry and an outbox row each.

It does for them what the toolkit does: it reads the order's id, sees that the deadline has passed, logs the refusal,
publishes it, and deletes its row after the confirm. An order in time is not its task.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

from benchmarks.bulk_amqp import Delivery
from benchmarks.saga import Route
from benchmarks.systems.by_hand.batch import Batch, Step
from benchmarks.systems.by_hand.loop import Loop, Store
from benchmarks.systems.by_hand.on_postgresql import PostgresStore
from benchmarks.systems.by_hand.rabbitmq import run
from benchmarks.systems.process import work

_RESERVE = Route(
    service="inventory",
    consumes="order.OrderCreated",
    step="reserve_inventory",
    emits="inventory.InventoryReserved",
    refuses_with="inventory.InventoryReservationFailed",
)
_TIMEOUT = timedelta(minutes=2)


class ExpiredOrders(Loop):
    """The inventory's loop."""

    def __init__(self, name: str, store: Store) -> None:
        super().__init__(name, store)
        self.routes = {_RESERVE.consumes: _RESERVE}

    def batch(self, deliveries: Sequence[Delivery], confirmed: Sequence[str]) -> Batch:
        """Refuse these orders."""
        expired = datetime.now(UTC) - _TIMEOUT
        return Batch(confirmed, steps=[_refused(each, expired) for each in deliveries])


def _refused(delivery: Delivery, expired: datetime) -> Step:
    if delivery.sent_at is None or delivery.sent_at > expired:
        raise RuntimeError("an order came in time")
    order_id = json.loads(delivery.body)["order_id"]
    return {
        "saga_id": order_id,
        "step": _RESERVE.step,
        "position": 1,
        "state": "failed",
        "event_id": delivery.message_id,
        "emitted_id": str(uuid4()),
        "emitted_type": _RESERVE.refuses_with or "",
        "body": json.dumps({"reason": "its deadline had passed when the event arrived", "order_id": order_id}),
        "amount": 0,
    }


if __name__ == "__main__":
    work(partial(run, open_store=PostgresStore.open, loop_of=ExpiredOrders))
