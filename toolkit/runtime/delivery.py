"""A message between its arrival and its commit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import Message


@dataclass(slots=True, eq=False)
class Delivery:
    """A message that waits for its commit; `settled` resolves when it has committed.

    - `was_cut`: the database went away under the message's transaction.
    - `is_suspect`: such a transaction broke while the database was there; the message is executed alone from then on.
    - `breaks`, `contentions`: how many of its transactions, in which it was alone, were lost.
    - `failed`: the error that its next execution records as a failed attempt, instead of running a step.
    - `since`: how many transactions had recorded something when the message's first transaction broke.
    - `holds`: how often it was laid aside because its failure could not be recorded either.
    """

    item: Message | Unreadable
    settled: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    was_cut: bool = False
    is_suspect: bool = False
    breaks: int = 0
    contentions: int = 0
    failed: Exception | None = None
    since: int | None = None
    holds: int = 0

    def settle(self) -> None:
        """Resolve `settled`, unless the transport gave the delivery up: its channel closed, so it comes again."""
        if not self.settled.done():
            self.settled.set_result(None)
