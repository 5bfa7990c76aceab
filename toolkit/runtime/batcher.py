"""The batcher: the messages that arrive while a transaction runs form the next batch.

At rest a batch is one message: only the ends of sagas wait for others, since no caller waits for them. Deliveries are
settled only once their transaction has committed, one call a batch: a transport that acknowledges then loses nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from toolkit import failpoints
from toolkit.clock import Clock
from toolkit.errors import DatabaseUnavailableError
from toolkit.foreign_code.containment import contain, in_own_task
from toolkit.messaging.decoding import Decoder
from toolkit.messaging.envelope import WireMessage
from toolkit.runtime.delivery import Delivery, settle, settled
from toolkit.runtime.executor import Executor
from toolkit.runtime.external_calls import ExternalCalls
from toolkit.runtime.failed_batches import FailedBatches
from toolkit.runtime.unit_of_work import ExternalCall, events_of

#: How long ends of sagas wait for a batch that is executed anyway, in seconds: at ten sagas at once that spares four of
#: ten transactions.
_LONGEST_WAIT_OF_ENDS = 0.05


class Batcher:
    """Takes deliveries from a transport, and executes them in batches.

    - `paused`, `taking`: whether the database has been away for long. A transport returns its messages then, calls
      `let_go`, and takes none until `taking`.
    """

    def __init__(
        self, executor: Executor, external_calls: ExternalCalls, decoder: Decoder, *, clock: Clock, batch_size: int
    ) -> None:
        self._executor = executor
        self._external_calls = external_calls
        self._decoder = decoder
        self._availability = executor.availability
        self._clock = clock
        self._batch_size = batch_size
        self._failed = FailedBatches(executor, execute=self._execute, requeue=self._requeue)
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._more = asyncio.Event()
        self._more.set()
        self._calling: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_stopping = False
        self.paused, self.taking = self._availability.paused, self._availability.taking

    @property
    def is_healthy(self) -> bool:
        """Whether the database took all that was to be recorded."""
        return self._availability.is_there and not self._failed.held

    @property
    def is_idle(self) -> bool:
        """Whether all deliveries are settled, and all external calls made."""
        return self._idle.is_set() and not self._waiting and not self._calling

    async def deliver(self, wire: WireMessage) -> None:
        """Enqueue a message, and return when its transaction has committed."""
        await settled(wire, self.accept)

    def accept(self, deliveries: Sequence[Delivery]) -> None:
        """Decode and enqueue deliveries; each is settled when its transaction has committed."""
        taken = [each for each in deliveries if self._decode(each)]
        failpoints.here("delivered", events_of(each.item for each in taken))
        self._requeue(*taken)

    def let_go(self) -> None:
        """Fail all deliveries that wait for the database as unavailable: the transport delivers them again."""
        for each in (*self._waiting, *self._failed.held):
            each.fail(DatabaseUnavailableError("the database has been away for long"))
        self._waiting.clear()

    async def run(self) -> None:
        """Execute batch after batch until `stop`."""
        while not self._is_stopping:
            await self._arrived.wait()
            self._arrived.clear()
            self._idle.clear()
            while self._waiting and not self._is_stopping:
                await self._wait_for_more()
                if batch := self._next_batch():
                    await self._execute(batch)
            self._idle.set()

    async def _wait_for_more(self) -> None:
        """Where only ends of sagas wait, let them join the next batch, if one comes soon."""
        if self._can_wait():
            self._more.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_WAIT_OF_ENDS):
                    await self._more.wait()

    def _can_wait(self) -> bool:
        return len(self._waiting) < self._batch_size and all(each.can_wait for each in self._waiting)

    def stop(self) -> None:
        """Let `run` return after the current batch."""
        self._is_stopping = True
        self._more.set()
        self._availability.stop()
        self._arrived.set()

    async def drain(self) -> None:
        """Wait until all deliveries are settled, and all external calls made."""
        while not self.is_idle:
            await self._idle.wait()
            if self._calling:
                await asyncio.wait(self._calling)
            await asyncio.sleep(0)

    def _next_batch(self) -> list[Delivery]:
        """Return the next deliveries: a suspect alone, or as many others as wait before the next suspect.

        Deliveries that the transport gave up are left out: they come again.
        """
        batch: list[Delivery] = []
        while self._waiting and len(batch) < self._batch_size:
            first = self._waiting[0]
            if batch and (batch[0].runs_alone or first.runs_alone):
                break
            self._waiting.popleft()
            if not first.is_done:
                batch.append(first)
        return batch

    def _decode(self, delivery: Delivery) -> bool:
        try:
            delivery.item = self._decoder.receive(delivery.wire, self._clock)
        except Exception as error:  # noqa: BLE001 -- a fault of the decoder's own, as of a commit that failed
            delivery.fail(error)
            return False
        return True

    async def _execute(self, batch: list[Delivery]) -> None:
        try:
            # Only a suspect, which is alone, has failed.
            executing = self._executor.execute([each.item for each in batch], commit_error=batch[0].commit_error)
            calls = await in_own_task("a transaction", executing)
        except Exception as error:  # noqa: BLE001 -- a failed commit: wait, part the batch, or fail the step
            await self._failed.recover(batch, error)
        else:
            settle(each for each, of_one in zip(batch, calls, strict=True) if not of_one)
            for each, of_one in zip(batch, calls, strict=True):
                if of_one:
                    self._begin_calls(each, of_one)

    def _begin_calls(self, delivery: Delivery, calls: list[ExternalCall]) -> None:
        """Make the external calls of a committed delivery, which is settled after them."""
        task = asyncio.create_task(self._call(delivery, calls))
        self._calling.add(task)
        task.add_done_callback(self._calling.discard)

    async def _call(self, delivery: Delivery, calls: list[ExternalCall]) -> None:
        try:
            for call in calls:
                made = replace(call, commit_error=delivery.commit_error) if delivery.commit_error else call
                await contain("an external call", self._external_calls.run(made))
        except Exception as error:  # noqa: BLE001 -- its result could not be recorded: it is made again under its key
            await self._failed.recover([delivery], error)
        else:
            settle([delivery])

    def _requeue(self, *deliveries: Delivery, first: bool = False) -> None:
        if first:
            self._waiting.extendleft(reversed(deliveries))
        else:
            self._waiting.extend(deliveries)
        self._arrived.set()
        if not self._can_wait():
            self._more.set()
