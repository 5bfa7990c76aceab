"""Consumes one queue on aiormq's channel, and resumes after each outage.

aio-pika's consumer makes two tasks and a copy of all properties for each delivery, a tenth of what a saga costs under
load. This one, too, consumes again on a reopened channel, and after the broker ended the consumer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from aio_pika.abc import AbstractRobustChannel
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from toolkit.errors import EscapedError
from toolkit.foreign_code.containment import contain
from toolkit.ids import new_id
from toolkit.transport.rabbitmq.acknowledgements import AWAY
from toolkit.transport.rabbitmq.delivery_batching import Take, consume

#: How long the broker may take to confirm that a channel is closed, or consumed on, in seconds.
_CLOSING = 5.0


class QueueConsumer:
    """Receives the deliveries of one queue.

    - `take`: called with the deliveries of each turn of the event loop.
    - `begin`: called before it consumes on a reopened channel.
    - `ended`: set when the broker has ended the consumer, after its queue was deleted for example; `consume` resumes.
    """

    def __init__(
        self, channel: AbstractRobustChannel, queue: str, take: Take, *, begin: Callable[[], None] = lambda: None
    ) -> None:
        self.ended = asyncio.Event()
        self._channel = channel
        self._queue = queue
        self._take = take
        self._begin = begin
        self._is_paused = False
        self._consuming_on: AbstractChannel | None = None
        self._tag: str | None = None
        self._resuming: asyncio.Task[None] | None = None

    async def consume(self) -> None:
        """Begin to consume on the channel, unless it already does, or is paused."""
        if self._is_paused:
            return
        self._channel.reopen_callbacks.add(self._reopened)
        channel = await self._channel.get_underlay_channel()
        if channel is self._consuming_on:
            return
        self._consuming_on = channel
        self._begin()
        channel.on_consumer_cancel_callbacks.add(self._is_ended)
        self._tag = new_id()
        try:
            await consume(channel, self._queue, self._tag, self._take)
        except BaseException:  # after a timeout, too, the channel must not count as one that consumes
            if self._consuming_on is channel:
                self._consuming_on = None
            raise

    async def cancel(self) -> None:
        """Take nothing new, on this channel and on its successors."""
        self._channel.reopen_callbacks.discard(self._reopened)
        if self._resuming:
            self._resuming.cancel()
        channel, self._consuming_on = self._consuming_on, None
        if channel and self._tag:
            with suppress(*AWAY):
                await channel.basic_cancel(self._tag)

    async def pause(self) -> None:
        """Return all unsettled deliveries to the broker, in their order, and take nothing until `resume`."""
        self._is_paused = True
        channel, self._consuming_on = self._consuming_on, None
        if channel:
            with suppress(*AWAY):
                async with asyncio.timeout(_CLOSING):
                    await channel.close()

    async def resume(self) -> None:
        """Consume again."""
        self._is_paused = False
        with suppress(*AWAY):  # the next declaration of the queue tries again
            async with asyncio.timeout(_CLOSING):
                await self.consume()

    def _reopened(self, _: AbstractRobustChannel | None) -> None:
        # In a task: aio-pika counts the channel as restored after the callback, and would not reopen a channel that the
        # broker closes within it because the queue is still missing.
        self._resuming = asyncio.create_task(self._consume_again())

    async def _consume_again(self) -> None:
        try:
            await contain("consuming again", self.consume())
        except (*AWAY, EscapedError):  # the queue may be gone: declaring it again resumes the consumer
            self.ended.set()

    async def _is_ended(self, _: Basic.Cancel) -> None:
        self._consuming_on = None
        self.ended.set()
