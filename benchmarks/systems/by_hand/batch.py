"""What one transaction of a hand-written loop writes."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict
from uuid import uuid4

from benchmarks.bulk_amqp import Delivery, Outgoing
from benchmarks.saga import ENDS, Route

#: The event that closes the sagas that it lists, in every service.
ENDED = "control.Ended"


class Step(TypedDict):
    """A step: its entry in the log, the event that follows, and the amount of its own row, 0 for no row."""

    saga_id: str
    step: str
    position: int
    state: str
    event_id: str
    emitted_id: str
    emitted_type: str
    body: str
    amount: int


@dataclass(slots=True)
class Batch:
    """The rows of one transaction.

    - `ended`: the sagas to close, and `ended_by`, the event that lists them.
    - `closing`: the event that closes the sagas that end in this batch.
    - `confirmed`: the outbox rows to delete.
    """

    confirmed: Sequence[str] = ()
    steps: list[Step] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    ended_by: str = ""
    closing: list[Outgoing] = field(default_factory=list)

    @classmethod
    def of(cls, routes: Mapping[str, Route], deliveries: Iterable[Delivery], confirmed: Sequence[str]) -> Batch:
        """Build the rows."""
        batch = cls(confirmed)
        ending: list[str] = []
        for _, key, message_id, body, _ in deliveries:
            event = json.loads(body)
            if key == ENDED:
                batch.ended += event["orders"]
                batch.ended_by = message_id
            else:
                step = _step(routes[key], event, message_id, body.decode())
                batch.steps.append(step)
                if step["emitted_type"] in ENDS:
                    ending.append(step["saga_id"])
        if ending:
            batch.closing.append(Outgoing(str(uuid4()), ENDED, json.dumps({"orders": ending}).encode()))
        return batch

    def outgoing(self, fresh: Container[str] | None) -> list[Outgoing]:
        """Return what is to be published; of the steps, those whose emitted ids are `fresh`, or all of them."""
        steps = self.steps if fresh is None else [each for each in self.steps if each["emitted_id"] in fresh]
        events = [Outgoing(each["emitted_id"], each["emitted_type"], each["body"].encode()) for each in steps]
        return events + self.closing


def _step(route: Route, event: Mapping[str, object], event_id: str, body: str) -> Step:
    refuses = bool(route.refuses_with and event.get("refuse"))
    return {
        "saga_id": str(event["order_id"]),
        "step": route.step,
        "position": 2 if route.undoes else 1,
        "state": "compensated" if route.undoes else "failed" if refuses else "completed",
        "event_id": event_id,
        "emitted_id": str(uuid4()),
        "emitted_type": (route.refuses_with or "") if refuses else route.emits,
        "body": body,
        "amount": 0 if refuses else route.amount,
    }
