"""What follows a failed transaction: the database is waited for, or the message that broke it is found and recorded.

No error of the database gives a message back to the transport: it is executed again, laid aside for a while, recorded
as a failed attempt, or kept as a dead letter in the service's own table. None of these holds up other messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from toolkit.errors import ContentionError, UnrecordedError
from toolkit.foreign_code.containment import contain
from toolkit.ids import trace_facts
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import Message
from toolkit.persistence.availability import PAUSES
from toolkit.persistence.database_errors import complain, is_contention, is_outage, may_pass
from toolkit.runtime.delivery import Delivery, settle
from toolkit.runtime.executor import Executor

#: How often in a row a message may break its transaction, alone and with a database that answers, before that is a
#: failed attempt: a restart, or an operator who ends connections, rarely hits one message twice.
_BREAKS = 2
#: How often a message that is alone may lose to other transactions before that is a failed attempt: another message won
#: each time, unless this one causes the contention.
_CONTENTIONS = 10
#: A message that is laid aside again and again is logged once in so many times: about once a minute.
_SILENT_HOLDS = 30


class FailedBatches:
    """Recovers the deliveries of one service whose transactions failed.

    - `execute`: executes deliveries at once.
    - `requeue`: appends deliveries to those that wait, or prepends them with `first=True`.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        execute: Callable[[list[Delivery]], Awaitable[None]],
        requeue: Callable[..., None],
    ) -> None:
        self._executor = executor
        self._execute = execute
        self._requeue = requeue
        self._held: set[Delivery] = set()

    @property
    def held(self) -> Iterable[Delivery]:
        """The deliveries that are laid aside, or wait for the database."""
        return tuple(self._held)

    async def recover(self, batch: Sequence[Delivery], error: Exception) -> None:
        """Wait for the database, or find the message that broke the transaction."""
        self._held.update(batch)
        for each in batch:
            each.since = self._executor.recorded if each.since is None else each.since
        is_lost_race = isinstance(error, ContentionError) or is_contention(error)
        was_away = not is_lost_race and await self._executor.availability.regained()
        self._held.difference_update(batch)
        batch = [each for each in batch if not each.is_done]  # the transport delivers the others again
        if len(batch) > 1:
            self._part(batch, was_away=was_away)
            return
        for delivery in batch:
            delivery.runs_alone = True
            if is_lost_race:
                self._lost_a_race(delivery, error)
            elif isinstance(error, UnrecordedError) or delivery.commit_error:
                await self._unrecorded(delivery, error.__cause__ or error)
            else:
                await self._broke(delivery, error)

    def _part(self, batch: Sequence[Delivery], *, was_away: bool) -> None:
        """Execute each alone; after an outage the whole batch once more, unless an outage cut it off before.

        One of these messages may cause the outage.
        """
        is_parted = not was_away or any(each.was_cut for each in batch)
        for each in batch:
            each.runs_alone, each.was_cut = is_parted, True
        self._requeue(*batch, first=True)

    def _lost_a_race(self, delivery: Delivery, error: Exception) -> None:
        delivery.contentions += 1
        if delivery.contentions >= _CONTENTIONS and delivery.commit_error is None:
            delivery.commit_error = error
        self._requeue(delivery)

    async def _broke(self, delivery: Delivery, error: BaseException) -> None:
        delivery.breaks += 1
        if delivery.breaks >= _BREAKS or not may_pass(error):
            await self._fail(delivery, error)
        else:
            self._requeue(delivery)

    async def _fail(self, delivery: Delivery, error: BaseException) -> None:
        """Record a failed attempt at once: later the cause may be gone, and the attempt would succeed."""
        delivery.commit_error = error if isinstance(error, Exception) else None
        await self._execute([delivery])

    async def _unrecorded(self, delivery: Delivery, error: BaseException) -> None:
        """Lay aside a message whose outcome the log does not take.

        Once other messages were recorded meanwhile, the fault is this message's: a failed attempt; and where the log
        does not take that either, a dead letter.
        """
        is_alone = delivery.holds > 0 and self._executor.recorded > (delivery.since or 0) and not is_outage(error)
        if is_alone and delivery.commit_error is None:
            await self._fail(delivery, error)
        elif not (is_alone and await self._is_dead_lettered(delivery, error)):
            delivery.commit_error = None
            self._hold(delivery, error)

    async def _is_dead_lettered(self, delivery: Delivery, error: BaseException) -> bool:
        try:
            await contain("a dead letter", self._executor.dead_letter(delivery.item, error))
        except Exception as failure:  # noqa: BLE001 -- the dead letter is not taken either: it is tried again
            complain("dead letter could not be kept", failure, **_facts(delivery.item))
            return False
        settle([delivery])
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
        if not delivery.is_done:
            self._requeue(delivery)


def _facts(item: Message | Unreadable) -> dict[str, str | None]:
    if isinstance(item, Unreadable):
        saga = {"saga_type": item.saga_type, "saga_id": item.wire.correlation_id}
        return saga | {"event_id": item.wire.message_id}
    saga = {"saga_type": item.envelope.saga_type, "saga_id": item.envelope.saga_id}
    facts = saga | {"event_id": item.envelope.event_id}
    return facts | trace_facts(item.envelope.traceparent)
