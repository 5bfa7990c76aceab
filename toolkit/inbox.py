"""The inbox: what waits while a transaction is under way forms the next one.

At rest a batch is one message and nothing waits for company. A delivery returns only once its effect is committed,
so that a transport which acknowledges afterwards loses nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import structlog

from toolkit import crash
from toolkit.clock import Clock
from toolkit.contained import apart, contain
from toolkit.database import is_contention, is_outage
from toolkit.envelope import Message, WireMessage
from toolkit.errors import ContentionError
from toolkit.execution import Execution
from toolkit.ids import trace_facts
from toolkit.isolated import Isolation
from toolkit.vocabulary import Unreadable, Vocabulary
from toolkit.work import Claim, events_of

log = structlog.get_logger("toolkit")

#: The pauses between the probes of a database that is away, in seconds: short at first, for a mere restart.
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(slots=True, eq=False)
class Delivery:
    """A message that waits for its commit."""

    item: Message | Unreadable
    settled: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Inbox:
    """Takes deliveries from a transport and has them executed in batches."""

    def __init__(
        self, execution: Execution, isolation: Isolation, vocabulary: Vocabulary, *, clock: Clock, batch_size: int
    ) -> None:
        self._execution = execution
        self._isolation = isolation
        self._vocabulary = vocabulary
        self._clock = clock
        self._batch_size = batch_size
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._outside: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._outages = 0
        self._is_stopping = False

    @property
    def is_healthy(self) -> bool:
        """Whether the last transaction reached the database."""
        return self._outages == 0

    @property
    def is_idle(self) -> bool:
        """Whether all that was taken is settled, the outside calls included."""
        return self._idle.is_set() and not self._waiting and not self._outside

    async def deliver(self, wire: WireMessage) -> None:
        """Take a message, and return once what it brings about is committed."""
        await self.take(wire)

    def take(self, wire: WireMessage) -> asyncio.Future[None]:
        """Take a message, and return what is done once what it brings about is committed."""
        delivery = Delivery(self._vocabulary.receive(wire, self._clock))
        crash.here("delivered", events_of([delivery.item]))
        self._waiting.append(delivery)
        self._arrived.set()
        return delivery.settled

    async def run(self) -> None:
        """Execute batch after batch until told to stop."""
        while not self._is_stopping:
            await self._arrived.wait()
            self._arrived.clear()
            self._idle.clear()
            while self._waiting and not self._is_stopping:
                await self._settle(self._next_batch())
            self._idle.set()

    def stop(self) -> None:
        """Have `run` end after the batch that is under way."""
        self._is_stopping = True
        self._arrived.set()

    async def drain(self) -> None:
        """Wait until all that was taken is settled, the outside calls included."""
        while not self.is_idle:
            await self._idle.wait()
            if self._outside:
                await asyncio.wait(self._outside)
            await asyncio.sleep(0)

    def _next_batch(self) -> list[Delivery]:
        return [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]

    async def _settle(self, batch: list[Delivery], *, failed: Exception | None = None) -> None:
        try:
            items = [each.item for each in batch]
            claims = await apart("a transaction", self._execution.execute(items, failed=failed))
        except Exception as error:  # noqa: BLE001 -- the verdict on a failed commit: wait, part the batch, or fail the step
            await self._recover(batch, error, failed)
        else:
            self._outages = 0
            self._release(batch, claims)

    async def _recover(self, batch: list[Delivery], error: Exception, failed: Exception | None) -> None:
        """Wait for the database, or commit one by one, so that a single bad message never holds up others."""
        if is_outage(error):
            await self._pause(error)
            self._waiting.extendleft(reversed(batch))
        elif len(batch) > 1:
            for each in batch:
                await self._settle([each])
        elif isinstance(error, ContentionError) or is_contention(error):
            self._waiting.extendleft(batch)
        elif failed is None:
            await self._settle(batch, failed=error)
        else:
            _refuse_delivery(batch[0], error)

    async def _pause(self, error: Exception) -> None:
        log.warning("the database is away; nothing is acknowledged meanwhile", error=str(error))
        await asyncio.sleep(_PAUSES[min(self._outages, len(_PAUSES) - 1)])
        self._outages += 1

    def _release(self, batch: list[Delivery], claims: list[list[Claim]]) -> None:
        for delivery, outside in zip(batch, claims, strict=True):
            if outside:
                task = asyncio.create_task(self._call_outside(delivery, outside))
                self._outside.add(task)
                task.add_done_callback(self._outside.discard)
            else:
                _settled(delivery)

    async def _call_outside(self, delivery: Delivery, claims: list[Claim]) -> None:
        """Make the outside calls that a message's transaction made room for; it is settled when they are."""
        try:
            for claim in claims:
                await contain("a call to the outside", self._isolation.run(claim))
        except Exception as error:  # noqa: BLE001 -- the outcome could not be recorded: the call is made again under its key
            if is_outage(error):
                await self._pause(error)
                self._again(delivery)
            elif isinstance(error, ContentionError) or is_contention(error):
                self._again(delivery)
            else:
                _refuse_delivery(delivery, error)
        else:
            _settled(delivery)

    def _again(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._arrived.set()


def _settled(delivery: Delivery) -> None:
    # The transport may have given up waiting: its channel closed, and the message will be delivered again.
    if not delivery.settled.done():
        delivery.settled.set_result(None)


def _refuse_delivery(delivery: Delivery, error: Exception) -> None:
    """Let the transport give the message back: not even its failure could be written."""
    log.error("message could not be recorded", error=str(error), **_facts(delivery.item))
    if not delivery.settled.done():
        delivery.settled.set_exception(error)


def _facts(item: Message | Unreadable) -> dict[str, str | None]:
    if isinstance(item, Unreadable):
        return {"saga_id": item.wire.correlation_id, "event_id": item.wire.message_id}
    facts = {"saga_id": item.envelope.saga_id, "event_id": item.envelope.event_id}
    return facts | trace_facts(item.envelope.traceparent)
