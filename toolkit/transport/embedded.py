"""The embedded transport: several services in one process, no broker, one SQLite file each.

Publishing hands the event to each service that consumes it, and their commit is the confirm: so a kill -9 loses
nothing here either, since the outbox row remains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from toolkit import failpoints
from toolkit.clock import Clock, SystemClock
from toolkit.configuration.settings import EMBEDDED, Settings
from toolkit.declaration.events import routing_key
from toolkit.declaration.service import Service
from toolkit.errors import LoopEndedError, UnroutableError
from toolkit.messaging.addresses import consumed_keys
from toolkit.messaging.envelope import CONTROL_EVENTS, WireMessage
from toolkit.persistence import outbox
from toolkit.runtime.delivery import Delivery
from toolkit.runtime.quarantine import Quarantine
from toolkit.runtime.service_runtime import ServiceRuntime

#: Seconds for messages in progress when the block ends; and when a loop has ended, since some wait for it in vain.
_LAST_WORK, _LAST_MOMENT = 10.0, 1.0


class Embedded:
    """Runs services together; each keeps its own database file in the data directory.

    async with Embedded([inventory, payment], settings) as embedded:
        await embedded.publish(message)
    """

    def __init__(self, services: Sequence[Service], settings: Settings, *, clock: Clock | None = None) -> None:
        # One URL can't be the database of several services: each uses its file in the data directory.
        unused = {"database_url": None, "database_schema": None}
        settings = settings.model_copy(update=unused | {"broker_url": EMBEDDED})
        quarantine = Quarantine()  # the services share a process, which one message ends for all of them
        self._clock = clock = clock or SystemClock()
        self.runtimes = {
            each.name: ServiceRuntime(each, settings, self, clock=clock, quarantine=quarantine) for each in services
        }
        self._left: set[str | None] = set()
        self._queues = {runtime.queue: runtime for runtime in self.runtimes.values()}
        self._bound: dict[str, list[ServiceRuntime]] = {}
        self._body: asyncio.Task[Any] | None = None
        self._ended: LoopEndedError | None = None
        for runtime in self.runtimes.values():
            for key in (*consumed_keys(runtime.service, settings.asked_by), *map(routing_key, CONTROL_EVENTS)):
                self._bound.setdefault(key, []).append(runtime)

    async def __aenter__(self) -> Self:
        """Start all services; messages that the last run left unfinished continue."""
        self._body = asyncio.current_task()
        try:
            for runtime in self.runtimes.values():
                await runtime.prepare()
                async with runtime.database.reading() as connection:
                    self._left |= await outbox.message_ids(connection)
        except BaseException:  # on a cancellation, too, all that was opened is closed
            await asyncio.gather(*(runtime.stop() for runtime in self.runtimes.values()))
            raise
        # Only after all are prepared: the last run's outbox rows of one service may be for any of the others.
        for runtime in self.runtimes.values():
            runtime.loops.on_end = self._end
            runtime.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the messages in progress and stop.

        Raises:
            LoopEndedError: a background loop had ended before.
        """
        is_cancelled = self._is_cancelled()
        for runtime in self.runtimes.values():
            runtime.loops.let_end()
        # All drain before any stops: an event in progress stays with one service until another has committed it.
        within = _LAST_MOMENT if self._ended else _LAST_WORK
        await asyncio.gather(*(runtime.drain(within=within) for runtime in self.runtimes.values()))
        await asyncio.gather(*(runtime.stop() for runtime in self.runtimes.values()))
        if self._ended and not is_cancelled:
            raise self._ended

    def _end(self, error: LoopEndedError) -> None:
        """End the block: a service that has lost a loop makes no progress."""
        if self._ended is None and self._body and not self._body.done():
            self._body.cancel()
        self._ended = self._ended or error

    def _is_cancelled(self) -> bool:
        """Whether the block was cancelled for another reason than a loop's end."""
        task = asyncio.current_task()
        if task is None or task is not self._body:
            return False
        if self._ended:
            task.uncancel()
        return task.cancelling() > 0

    async def publish(self, message: WireMessage, *, destination: str | None = None) -> None:
        """Hand a message to each service that consumes it, and return once all of them have committed.

        Raises:
            UnroutableError: no service consumes it.
        """
        (error,) = await self.publish_many([(message, destination)])
        if error:
            raise error

    async def publish_many(self, messages: Sequence[tuple[WireMessage, str | None]]) -> list[Exception | None]:
        """Hand messages to the services that consume them; once all have committed, return None or the error for each.

        The errors are those of `publish`.
        """
        burst = _Burst(len(messages))
        for place, (message, destination) in enumerate(messages):
            consumers = [self._queues[destination]] if destination else self._bound.get(message.routing_key, [])
            is_redelivered = message.message_id in self._left  # the last run may have ended while it was executed
            burst.add(place, message, consumers, is_redelivered=is_redelivered)
        return await burst.delivered()

    async def settled(self, timeout: float) -> bool:  # noqa: ASYNC109 -- a wait that returns whether it was long enough
        """Wait until all outboxes are empty, for at most `timeout` seconds; return whether they are.

        A join's deadline waits there by design: it counts once it has passed, as after `ManualClock.advance`.
        """
        for runtime in self.runtimes.values():
            runtime.relay.wake()  # the clock may have been moved, which wakes no relay
        try:
            async with asyncio.timeout(timeout):
                while await self._unsent():  # noqa: ASYNC110 -- a table sends no notification
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    async def _unsent(self) -> int:
        total = 0
        for runtime in self.runtimes.values():
            async with runtime.database.reading() as connection:
                total += await outbox.count(connection, timers_until=self._clock.now())
        return total


class _Burst:
    """Messages that are published together: the source of their deliveries, and the outcome of each."""

    def __init__(self, count: int) -> None:
        self._outcomes: list[Exception | None] = [None] * count
        self._by_consumer: dict[ServiceRuntime, list[Delivery]] = {}
        self._open: dict[Delivery, int] = {}
        self._all_settled = asyncio.Event()

    def add(
        self, place: int, message: WireMessage, consumers: Sequence[ServiceRuntime], *, is_redelivered: bool
    ) -> None:
        """Add a message for these services, which is the `place`-th of the burst."""
        if not consumers:
            self._outcomes[place] = UnroutableError(f"no service consumes {message.routing_key}")
        for consumer in consumers:
            delivery = Delivery(message, self, is_redelivered)
            self._open[delivery] = place
            self._by_consumer.setdefault(consumer, []).append(delivery)

    async def delivered(self) -> list[Exception | None]:
        """Hand over the messages; once the services have committed them, return None or the error for each."""
        for consumer, deliveries in self._by_consumer.items():
            consumer.accept(deliveries)
        try:
            if self._open:
                await self._all_settled.wait()
        except asyncio.CancelledError:
            for each in self._open:
                each.abandon()
            raise
        return self._outcomes

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Count deliveries that were committed together."""
        failpoints.here("acked", (each.wire.type or each.wire.routing_key for each in deliveries))
        for each in deliveries:
            self._close(each)

    def fail(self, delivery: Delivery, error: Exception) -> None:
        """Keep the error of a delivery that a service did not commit."""
        self._outcomes[self._close(delivery)] = error

    def _close(self, delivery: Delivery) -> int:
        place = self._open.pop(delivery)
        if not self._open:
            self._all_settled.set()
        return place
