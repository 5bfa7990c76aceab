"""Acknowledges the deliveries of one consumer; one frame covers all that were done together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import structlog
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError
from aiormq.abc import AbstractChannel

from toolkit import failpoints
from toolkit.transport.rabbitmq.delivery_batching import ReceivedDelivery

log = structlog.get_logger("toolkit")

#: What the broker's client raises while the broker is away.
AWAY = (AMQPError, ChannelInvalidStateError, ConnectionError, OSError, TimeoutError)


async def quietly(settlement: Awaitable[None]) -> None:
    """Settle a delivery; on a closed channel the broker redelivers it, and the fence recognises the duplicate."""
    try:
        await settlement
    except AWAY as error:
        log.info(
            "delivery could not be settled; the broker will redeliver it", error=str(error) or type(error).__name__
        )


class Acks:
    """Acknowledges a consumer's deliveries, which its channel numbers from 1 without gaps.

    One frame acknowledges all up to a number. A delivery done before an older one, which an external call may hold for
    long, is acknowledged by itself.
    """

    def __init__(self) -> None:
        self._channel: AbstractChannel | None = None
        self._done: list[ReceivedDelivery] = []
        self._ahead: set[int] = set()
        self._all_up_to = 0
        self._acknowledging: asyncio.Task[None] | None = None

    def acknowledge(self, deliveries: Sequence[ReceivedDelivery]) -> None:
        """Acknowledge deliveries, together with all others that are done in this turn of the event loop."""
        for each in deliveries:
            if self._is_open(each.channel):
                self._done.append(each)
        if self._done and self._acknowledging is None:
            self._acknowledging = asyncio.create_task(self._acknowledge())

    async def give_back(self, delivery: ReceivedDelivery) -> None:
        """Return a delivery to the broker, which redelivers it and counts how often."""
        await quietly(delivery.channel.basic_reject(delivery.tag, requeue=True))
        # Asked afterwards: the channel may have closed, and the next one numbers from 1.
        if self._is_open(delivery.channel):
            self._ahead.add(delivery.tag)

    async def finish(self) -> None:
        """Wait until all acknowledgements are written."""
        if self._acknowledging is not None:
            await self._acknowledging

    def _is_open(self, channel: AbstractChannel) -> bool:
        """Whether a channel is open; if it is a new one, its deliveries are numbered from 1 again."""
        if channel.is_closed:
            return False
        if channel is not self._channel:
            self._channel, self._all_up_to = channel, 0
            self._done.clear()
            self._ahead.clear()
        return True

    async def _acknowledge(self) -> None:
        try:
            while self._done:
                done, self._done = self._done, []
                await self._acknowledge_at_once(done)
        finally:
            self._acknowledging = None

    async def _acknowledge_at_once(self, done: Sequence[ReceivedDelivery]) -> None:
        numbers = {each.tag for each in done}
        self._ahead |= numbers
        while self._all_up_to + 1 in self._ahead:
            self._all_up_to += 1
            self._ahead.discard(self._all_up_to)
        ahead = {number for number in numbers if number > self._all_up_to}
        channel = done[0].channel
        if len(ahead) < len(numbers):
            await quietly(channel.basic_ack(max(numbers - ahead), multiple=True))
        for number in sorted(ahead):
            await quietly(channel.basic_ack(number))
        failpoints.here("acked", (each.properties.message_type or each.frame.routing_key for each in done))
