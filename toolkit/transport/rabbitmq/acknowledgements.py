"""Acknowledges the deliveries of one consumer; one frame covers all that were done together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

import structlog
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError
from aiormq.abc import AbstractChannel, DeliveredMessage

from toolkit import failpoints

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
        self._done: dict[int, DeliveredMessage] = {}
        self._ahead: set[int] = set()
        self._all_up_to = 0
        self._acknowledging: asyncio.Task[None] | None = None

    def acknowledge(self, message: DeliveredMessage) -> None:
        """Acknowledge a delivery, together with all others that are done in this turn of the event loop."""
        if number := self._number(message):
            self._done[number] = message
            if self._acknowledging is None:
                self._acknowledging = asyncio.create_task(self._acknowledge())

    async def give_back(self, message: DeliveredMessage) -> None:
        """Return a delivery to the broker, which redelivers it and counts how often."""
        await quietly(message.channel.basic_reject(message.delivery_tag or 0, requeue=True))
        if number := self._number(
            message
        ):  # asked afterwards: the channel may have closed, and the next one numbers from 1
            self._ahead.add(number)

    async def finish(self) -> None:
        """Wait until all acknowledgements are written."""
        if self._acknowledging is not None:
            await self._acknowledging

    def _number(self, message: DeliveredMessage) -> int | None:
        """Return the delivery's number on the open channel; None on a closed one."""
        channel = message.channel
        if channel.is_closed:
            return None
        if channel is not self._channel:
            self._channel, self._all_up_to = channel, 0
            self._done.clear()
            self._ahead.clear()
        return message.delivery_tag

    async def _acknowledge(self) -> None:
        try:
            while self._done:
                done, self._done = self._done, {}
                await self._acknowledge_at_once(done)
        finally:
            self._acknowledging = None

    async def _acknowledge_at_once(self, done: Mapping[int, DeliveredMessage]) -> None:
        self._ahead.update(done)
        while self._all_up_to + 1 in self._ahead:
            self._all_up_to += 1
            self._ahead.discard(self._all_up_to)
        ahead = [number for number in done if number > self._all_up_to]
        channel = next(iter(done.values())).channel
        if len(ahead) < len(done):
            await quietly(channel.basic_ack(max(done.keys() - ahead), multiple=True))
        for number in ahead:
            await quietly(channel.basic_ack(number))
        failpoints.here("acked", (each.header.properties.message_type or each.routing_key for each in done.values()))
