"""A message between its arrival and its commit, and the transport that it came from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from toolkit.declaration.events import SagaEnded
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import Message, WireMessage


class Source(Protocol):
    """The transport side of deliveries: acknowledges those that were committed, and takes back those that failed."""

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries that were committed together."""

    def fail(self, delivery: Delivery, error: Exception) -> None:
        """Take a delivery back; it is delivered again."""


@dataclass(slots=True, eq=False)
class Delivery:
    """A message that waits for its commit.

    - `is_redelivered`: it was delivered before, so it may have ended its process.
    - `item`: the decoded message, once the batcher has taken it.
    - `is_done`: it is settled, has failed, or its transport gave it up; it is not executed any more.
    - `isolation`: the task that executes a message which was delivered before.
    - `was_cut`: the database went away under the message's transaction.
    - `runs_alone`: such a transaction broke while the database was there; the message is executed alone from then on.
    - `breaks`, `contentions`: how many of its transactions, in which it was alone, were lost.
    - `commit_error`: the error that its next execution records as a failed attempt, instead of running a step.
    - `since`: how many transactions had recorded something when the message's first transaction broke.
    - `holds`: how often it was laid aside because its failure could not be recorded either.
    """

    wire: WireMessage
    source: Source
    is_redelivered: bool = False
    item: Message | Unreadable = field(init=False)
    is_done: bool = False
    isolation: asyncio.Task[None] | None = None
    was_cut: bool = False
    runs_alone: bool = False
    breaks: int = 0
    contentions: int = 0
    commit_error: Exception | None = None
    since: int | None = None
    holds: int = 0

    @property
    def can_wait(self) -> bool:
        """Whether it only ends sagas in this service's log: no message follows, and no caller waits for that."""
        return isinstance(self.item, Message) and isinstance(self.item.event, SagaEnded) and not self.runs_alone

    def fail(self, error: Exception) -> None:
        """Return the delivery to its transport, unless it is done."""
        if not self.is_done:
            self.is_done = True
            self.source.fail(self, error)

    def abandon(self) -> None:
        """Leave the message to its next delivery: this one's channel closed, or its caller was cancelled."""
        self.is_done = True
        if self.isolation:
            self.isolation.cancel()


def settle(deliveries: Iterable[Delivery]) -> None:
    """Settle deliveries that were committed together; each of their sources is called once."""
    by_source: dict[Source, list[Delivery]] = {}
    for each in deliveries:
        if not each.is_done:
            each.is_done = True
            by_source.setdefault(each.source, []).append(each)
    for source, own in by_source.items():
        source.settle(own)


async def settled(
    message: WireMessage, accept: Callable[[Sequence[Delivery]], None], *, is_redelivered: bool = False
) -> None:
    """Hand over one message, and return when its transaction has committed."""
    caller = _Caller()
    delivery = Delivery(message, caller, is_redelivered)
    accept([delivery])
    try:
        await caller.settled
    except asyncio.CancelledError:
        delivery.abandon()
        raise


class _Caller:
    """The source of one delivery that a caller awaits."""

    def __init__(self) -> None:
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, _: Sequence[Delivery]) -> None:
        if not self.settled.done():  # the caller is about to be cancelled
            self.settled.set_result(None)

    def fail(self, _: Delivery, error: Exception) -> None:
        if not self.settled.done():
            self.settled.set_exception(error)
