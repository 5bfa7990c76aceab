"""The deliveries that a service has received and not settled yet: each is settled after its commit."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog
from aiormq.abc import DeliveredMessage

from toolkit.errors import describe
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.transport.rabbitmq.acknowledgements import Acks
from toolkit.transport.rabbitmq.messages import wire_of

log = structlog.get_logger("toolkit")

#: How long a delivery that failed is held before it is returned to the broker, in seconds.
_PAUSE = 1.0


class Deliveries:
    """Hands the deliveries of one queue to the runtime, and acknowledges each once its transaction has committed."""

    def __init__(self, runtime: ServiceRuntime, queue: str) -> None:
        self._runtime = runtime
        self._queue = queue
        self._acks = Acks()
        self._in_hand: dict[asyncio.Future[None], DeliveredMessage] = {}

    def __len__(self) -> int:
        """Return how many deliveries are not settled."""
        return len(self._in_hand)

    async def handle(self, raw: DeliveredMessage) -> None:
        """Hand a delivery to the runtime; it is settled after the commit."""
        try:
            names = {"exchange": raw.exchange or "", "own": self._queue, "shared": self._runtime.settings.exchange}
            wire = wire_of(raw.body, raw.routing_key, raw.header.properties, **names)
            settled = self._runtime.take(wire, again=bool(raw.redelivered))
        except Exception as error:  # noqa: BLE001 -- as of a commit that failed
            await self._requeue(raw, error)
        else:
            self._in_hand[settled] = raw
            settled.add_done_callback(partial(self._settle, raw))

    def forget_closed_channels(self) -> None:
        """Drop what came on a channel that has closed: the broker redelivers it, and it would be held twice."""
        for settled, raw in list(self._in_hand.items()):
            if raw.channel.is_closed:
                settled.cancel()

    async def finish(self) -> None:
        """Wait until all of them are settled, and their acknowledgements written."""
        while self._in_hand:
            await asyncio.wait(self._in_hand)
        await self._acks.finish()

    def _settle(self, raw: DeliveredMessage, settled: asyncio.Future[None]) -> None:
        self._in_hand.pop(settled, None)
        error = None if settled.cancelled() else settled.exception()
        if settled.cancelled() or raw.channel.is_closed:
            return  # the broker redelivers it
        if error:
            requeueing = asyncio.create_task(self._requeue(raw, error))
            self._in_hand[requeueing] = raw
            requeueing.add_done_callback(lambda task: self._in_hand.pop(task, None))
        else:
            self._acks.acknowledge(raw)

    async def _requeue(self, raw: DeliveredMessage, error: BaseException) -> None:
        """Return a delivery to the broker after a pause: the broker redelivers at once, without a limit."""
        message_id = raw.header.properties.message_id
        log.error("message returned to the broker", error=describe(error), message_id=message_id)
        await asyncio.sleep(_PAUSE)
        await self._acks.give_back(raw)
