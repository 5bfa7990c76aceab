"""A source of deliveries that records what the batcher returns to it."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.runtime.delivery import Delivery


class Recorded:
    """A transport that records what is settled by each call, and what fails."""

    def __init__(self) -> None:
        self.settled: list[list[Delivery]] = []
        self.failed: list[tuple[Delivery, Exception]] = []

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        self.settled.append(list(deliveries))

    def fail(self, delivery: Delivery, error: Exception) -> None:
        self.failed.append((delivery, error))
