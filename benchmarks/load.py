"""A load: orders placed, a number of them at once, and the time from placing one to the event that ends it.

A state machine without a task or a future an order: an end records its latency, and places the next order.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import uuid4

from benchmarks.bulk_amqp import Outgoing
from benchmarks.saga import START


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A load to place: the number of orders in all, and at once, and the share of them that is refused."""

    orders: int
    at_once: int
    refused: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """A load that was placed, and its times in seconds; `cpu` is the client's alone, None where it has no process."""

    orders: int
    refused: int
    seconds: float
    latencies: list[float]
    cpu: float | None = None

    @property
    def rate(self) -> float:
        """Orders a second."""
        return self.orders / self.seconds


class Orders:
    """The orders of one load; `publish` gets all that are placed in one turn."""

    def __init__(self, case: Case, publish: Callable[[list[Outgoing]], object]) -> None:
        self._case, self._publish = case, publish
        self._placed, self._refused = 0, 0
        self._begun: dict[str, float] = {}
        self._latencies: list[float] = []
        self._done = asyncio.Event()

    async def place(self, *, patience: float) -> Load:
        """Place all orders, and wait for their ends.

        Raises:
            TimeoutError: no order has ended for `patience` seconds.
        """
        begun = time.perf_counter()
        self._place_next(self._case.at_once)
        while not self._done.is_set():
            ended = len(self._latencies)
            try:
                await asyncio.wait_for(self._done.wait(), patience)
            except TimeoutError:
                if len(self._latencies) == ended:
                    raise
        return Load(self._case.orders, self._refused, time.perf_counter() - begun, self._latencies)

    def end(self, bodies: Iterable[bytes]) -> None:
        """Note the orders whose last events have these bodies, and place as many; a duplicate of an end is ignored."""
        now, ended = time.perf_counter(), 0
        for body in bodies:
            begun = self._begun.pop(json.loads(body)["order_id"], None)
            if begun is not None:
                self._latencies.append(now - begun)
                ended += 1
        self._place_next(ended)
        if len(self._latencies) == self._case.orders:
            self._done.set()

    def _place_next(self, number: int) -> None:
        now, messages = time.perf_counter(), []
        for _ in range(min(number, self._case.orders - self._placed)):
            refuse = (self._placed * self._case.refused) % 1 + self._case.refused >= 1
            self._placed += 1
            self._refused += refuse
            order_id = str(uuid4())
            self._begun[order_id] = now
            body = f'{{"order_id": "{order_id}", "refuse": {"true" if refuse else "false"}}}'
            messages.append(Outgoing(order_id, START, body.encode()))
        if messages:
            self._publish(messages)
