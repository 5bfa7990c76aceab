"""The inbox: what waits while a transaction is under way forms the next one.

At rest a batch is one message and nothing waits for company. A delivery returns only once its effect is committed,
so that a transport which acknowledges afterwards loses nothing. No error of the database gives one back to the
transport: while the database is away it is held, and what can't be recorded is a letter in the service's own table.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from toolkit import failpoints
from toolkit.clock import Clock
from toolkit.errors import ContentionError, DatabaseUnavailableError, UnrecordedError
from toolkit.foreign_code.containment import apart, contain
from toolkit.ids import trace_facts
from toolkit.messaging.decoding import Decoder, Unreadable
from toolkit.messaging.envelope import Message, WireMessage
from toolkit.persistence.availability import PAUSES
from toolkit.persistence.database_errors import complain, is_contention, is_outage, may_pass
from toolkit.runtime.executor import Executor
from toolkit.runtime.external_calls import ExternalCalls
from toolkit.runtime.unit_of_work import ExternalCall, events_of

#: So often in a row a message may break its transaction, alone and with a database that is there, before that is a
#: failed attempt: a restart, or an operator who ends connections, hits the same message hardly twice.
_BREAKS = 2
#: So often a message that is alone may lose to other transactions before that is a failed attempt: each time somebody
#: else won, unless the message brings the contention about by itself.
_CONTENTIONS = 10
#: Of a message that is laid aside so often it is logged once: about once a minute.
_SILENT_HOLDS = 30


@dataclass(slots=True, eq=False)
class Delivery:
    """A message that waits for its commit.

    - `was_cut`: the database went away under the transaction that it was in.
    - `is_suspect`: such a transaction broke, and the database was there: it is executed alone from then on.
    - `breaks`, `contentions`: how often its transaction, in which it was alone, was lost.
    - `failed`: the error that its next execution is to record as a failed attempt, instead of running a step.
    - `since`: how many transactions had recorded something when the first one that it was in broke.
    - `holds`: how often it was laid aside because not even its failure could be recorded.
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


class Batcher:
    """Takes deliveries from a transport and has them executed in batches.

    - `paused`, `taking`: whether the database has been away for long; a transport gives back what it holds then, by
      `let_go`, and takes nothing until `taking`.
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
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._outside: set[asyncio.Task[None]] = set()
        self._held: set[Delivery] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_stopping = False
        self.paused, self.taking = self._availability.paused, self._availability.taking

    @property
    def is_healthy(self) -> bool:
        """Whether the database took all that was to be recorded."""
        return self._availability.is_there and not self._held

    @property
    def is_idle(self) -> bool:
        """Whether all that was taken is settled, the outside calls included."""
        return self._idle.is_set() and not self._waiting and not self._outside

    async def deliver(self, wire: WireMessage) -> None:
        """Take a message, and return what it brings about once it is committed."""
        await self.take(wire)

    def take(self, wire: WireMessage) -> asyncio.Future[None]:
        """Take a message, and return what is done once what it brings about is committed."""
        delivery = Delivery(self._decoder.receive(wire, self._clock))
        failpoints.here("delivered", events_of([delivery.item]))
        self._waiting.append(delivery)
        self._arrived.set()
        return delivery.settled

    def let_go(self) -> None:
        """Forget what waits for the database, since the transport will bring it again: each fails as unavailable."""
        for each in (*self._waiting, *self._held):
            if not each.settled.done():
                each.settled.set_exception(DatabaseUnavailableError("the database has been away for long"))
        self._waiting.clear()

    async def run(self) -> None:
        """Execute batch after batch until told to stop."""
        while not self._is_stopping:
            await self._arrived.wait()
            self._arrived.clear()
            self._idle.clear()
            while self._waiting and not self._is_stopping:
                if batch := self._next_batch():
                    await self._settle(batch)
            self._idle.set()

    def stop(self) -> None:
        """Have `run` end after the batch that is under way."""
        self._is_stopping = True
        self._availability.stop()
        self._arrived.set()

    async def drain(self) -> None:
        """Wait until all that was taken is settled, the outside calls included."""
        while not self.is_idle:
            await self._idle.wait()
            if self._outside:
                await asyncio.wait(self._outside)
            await asyncio.sleep(0)

    def _next_batch(self) -> list[Delivery]:
        """Return what is executed next: a suspect alone, or as many others as there are up to the next suspect.

        What the transport has given up meanwhile is left out: it will be delivered again.
        """
        batch: list[Delivery] = []
        while self._waiting and len(batch) < self._batch_size:
            first = self._waiting[0]
            if batch and (batch[0].is_suspect or first.is_suspect):
                break
            self._waiting.popleft()
            if not first.settled.done():
                batch.append(first)
        return batch

    async def _settle(self, batch: list[Delivery]) -> None:
        try:
            # Only what is alone has failed: it is a suspect.
            executing = self._executor.execute([each.item for each in batch], failed=batch[0].failed)
            calls = await apart("a transaction", executing)
        except Exception as error:  # noqa: BLE001 -- the verdict on a failed commit: wait, part the batch, or fail the step
            self._held.update(batch)
            await self._recover(batch, error)
        else:
            self._release(batch, calls)

    async def _recover(self, batch: Sequence[Delivery], error: Exception) -> None:
        """Wait for the database, or find the message that broke the transaction, so that it never holds up others."""
        for each in batch:
            each.since = self._executor.recorded if each.since is None else each.since
        is_lost_race = isinstance(error, ContentionError) or is_contention(error)
        was_away = not is_lost_race and await self._availability.regained()
        self._held.difference_update(batch)
        batch = [each for each in batch if not each.settled.done()]  # what is not wanted any more comes again
        if len(batch) > 1:
            self._part(batch, was_away=was_away)
            return
        for delivery in batch:
            delivery.is_suspect = True
            if is_lost_race:
                self._lost_a_race(delivery, error)
            elif isinstance(error, UnrecordedError) or delivery.failed:
                await self._unrecorded(delivery, error.__cause__ or error)
            else:
                await self._broke(delivery, error)

    def _part(self, batch: Sequence[Delivery], *, was_away: bool) -> None:
        """Have each executed alone; after an outage all of it once more, unless it was cut off before.

        One of these messages may be what brings the outage about.
        """
        is_parted = not was_away or any(each.was_cut for each in batch)
        for each in batch:
            each.is_suspect, each.was_cut = is_parted, True
        self._waiting.extendleft(reversed(batch))

    def _lost_a_race(self, delivery: Delivery, error: Exception) -> None:
        delivery.contentions += 1
        if delivery.contentions >= _CONTENTIONS and delivery.failed is None:
            delivery.failed = error
        self._again(delivery)

    async def _broke(self, delivery: Delivery, error: BaseException) -> None:
        delivery.breaks += 1
        if delivery.breaks >= _BREAKS or not may_pass(error):
            await self._fail(delivery, error)
        else:
            self._again(delivery)

    async def _fail(self, delivery: Delivery, error: BaseException) -> None:
        """Record a failed attempt at once: later the cause may be gone, and the attempt would have succeeded."""
        delivery.failed = error if isinstance(error, Exception) else None
        await self._settle([delivery])

    async def _unrecorded(self, delivery: Delivery, error: BaseException) -> None:
        """Lay aside a message of which the log does not take the outcome.

        Once others were recorded meanwhile it is this message alone: a failed attempt; and where not even that is
        taken, a letter.
        """
        is_alone = delivery.holds > 0 and self._executor.recorded > (delivery.since or 0) and not is_outage(error)
        if is_alone and delivery.failed is None:
            await self._fail(delivery, error)
        elif not (is_alone and await self._is_dead_lettered(delivery, error)):
            delivery.failed = None
            self._hold(delivery, error)

    async def _is_dead_lettered(self, delivery: Delivery, error: BaseException) -> bool:
        try:
            await contain("a dead letter", self._executor.dead_letter(delivery.item, error))
        except Exception as failure:  # noqa: BLE001 -- not even a letter could be kept: it is tried again
            complain("dead letter could not be kept", failure, **_facts(delivery.item))
            return False
        _settled(delivery)
        return True

    def _hold(self, delivery: Delivery, error: BaseException) -> None:
        """Lay a delivery aside for a while; the others go on."""
        if delivery.holds % _SILENT_HOLDS == 0:
            complain("message could not be recorded; it is kept and tried again", error, **_facts(delivery.item))
        pause = PAUSES[min(delivery.holds, len(PAUSES) - 1)]
        delivery.holds += 1
        self._held.add(delivery)
        asyncio.get_running_loop().call_later(pause, self._take_up, delivery)

    def _take_up(self, delivery: Delivery) -> None:
        self._held.discard(delivery)
        if not delivery.settled.done():
            self._again(delivery)

    def _release(self, batch: list[Delivery], calls: list[list[ExternalCall]]) -> None:
        for delivery, outside in zip(batch, calls, strict=True):
            if outside:
                task = asyncio.create_task(self._call_outside(delivery, outside))
                self._outside.add(task)
                task.add_done_callback(self._outside.discard)
            else:
                _settled(delivery)

    async def _call_outside(self, delivery: Delivery, calls: list[ExternalCall]) -> None:
        """Make the outside calls that a message's transaction made room for; it is settled when they are."""
        try:
            for call in calls:
                made = replace(call, failed=delivery.failed) if delivery.failed else call
                await contain("a call to the outside", self._external_calls.run(made))
        except Exception as error:  # noqa: BLE001 -- the outcome could not be recorded: the call is made again under its key
            self._held.add(delivery)
            await self._recover([delivery], error)
        else:
            _settled(delivery)

    def _again(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._arrived.set()


def _settled(delivery: Delivery) -> None:
    # The transport may have given up waiting: its channel closed, and the message will be delivered again.
    if not delivery.settled.done():
        delivery.settled.set_result(None)


def _facts(item: Message | Unreadable) -> dict[str, str | None]:
    if isinstance(item, Unreadable):
        saga = {"saga_type": item.saga_type, "saga_id": item.wire.correlation_id}
        return saga | {"event_id": item.wire.message_id}
    saga = {"saga_type": item.envelope.saga_type, "saga_id": item.envelope.saga_id}
    facts = saga | {"event_id": item.envelope.event_id}
    return facts | trace_facts(item.envelope.traceparent)
