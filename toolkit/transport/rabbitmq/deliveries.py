"""The deliveries that a service has received and not settled yet: each is settled after its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from toolkit.errors import describe
from toolkit.messaging.envelope import WireMessage
from toolkit.runtime.delivery import Delivery
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.transport.rabbitmq.acknowledgements import Acks
from toolkit.transport.rabbitmq.delivery_batching import ReceivedDelivery
from toolkit.transport.rabbitmq.messages import wire_of

log = structlog.get_logger("toolkit")

#: How long a delivery that failed is held before it is returned to the broker, in seconds.
_PAUSE = 1.0


class Deliveries:
    """Hands the deliveries of one queue to the runtime, and acknowledges those that were committed together at once."""

    def __init__(self, runtime: ServiceRuntime, queue: str) -> None:
        self._runtime = runtime
        self._queue = queue
        self._shared = runtime.settings.exchange
        self._acks = Acks()
        self._in_hand: dict[Delivery, ReceivedDelivery] = {}
        self._requeueing: dict[asyncio.Task[None], ReceivedDelivery] = {}
        self._none_left = asyncio.Event()

    def __len__(self) -> int:
        """Return how many deliveries are not settled."""
        return len(self._in_hand) + len(self._requeueing)

    def accept(self, received: Sequence[ReceivedDelivery]) -> None:
        """Hand deliveries to the runtime, which settles each after its commit."""
        taken: list[Delivery] = []
        for raw in received:
            try:
                delivery = Delivery(self._wire_of(raw), self, raw.frame.redelivered)
            except Exception as error:  # noqa: BLE001 -- as of a commit that failed
                self._begin_to_requeue(raw, error)
            else:
                self._in_hand[delivery] = raw
                taken.append(delivery)
        try:
            self._runtime.accept(taken)
        except Exception as error:  # noqa: BLE001 -- as of commits that failed
            for each in taken:
                each.fail(error)

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries that were committed together; what came on a closed channel is redelivered."""
        self._acks.acknowledge([self._in_hand.pop(each) for each in deliveries])
        self._check_rest()

    def fail(self, delivery: Delivery, error: Exception) -> None:
        """Return a delivery to the broker."""
        self._begin_to_requeue(self._in_hand.pop(delivery), error)
        self._check_rest()

    def forget_closed_channels(self) -> None:
        """Drop what came on a channel that has closed: the broker redelivers it, and it would be held twice."""
        for delivery, raw in list(self._in_hand.items()):
            if raw.channel.is_closed:
                delivery.abandon()
                del self._in_hand[delivery]
        for task, raw in self._requeueing.items():
            if raw.channel.is_closed:
                task.cancel()
        self._check_rest()

    async def finish(self) -> None:
        """Wait until all of them are settled, and their acknowledgements written."""
        while self:
            self._none_left.clear()
            await self._none_left.wait()
        await self._acks.finish()

    def _wire_of(self, raw: ReceivedDelivery) -> WireMessage:
        frame = raw.frame
        names = {"exchange": frame.exchange or "", "own": self._queue, "shared": self._shared}
        return wire_of(raw.body, frame.routing_key, raw.properties, **names)

    def _begin_to_requeue(self, raw: ReceivedDelivery, error: Exception) -> None:
        if raw.channel.is_closed:
            return  # the broker redelivers it
        task = asyncio.create_task(self._requeue(raw, error))
        self._requeueing[task] = raw
        task.add_done_callback(self._requeued)

    def _requeued(self, task: asyncio.Task[None]) -> None:
        del self._requeueing[task]
        self._check_rest()

    async def _requeue(self, raw: ReceivedDelivery, error: Exception) -> None:
        """Return a delivery to the broker after a pause: the broker redelivers at once, without a limit."""
        log.error("message returned to the broker", error=describe(error), message_id=raw.properties.message_id)
        await asyncio.sleep(_PAUSE)
        await self._acks.give_back(raw)

    def _check_rest(self) -> None:
        if not self:
            self._none_left.set()
