"""One call for all the deliveries that a consumer receives in one turn of the event loop.

aiormq takes each frame through a queue, and makes a task of each delivery; that costs more than all else of receiving
it. It has no public way to batch: this wraps a channel's `frames`, the one private attribute that is touched. On a
channel without it, each delivery is a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aiormq.abc import AbstractChannel, DeliveredMessage, FrameType
from aiormq.channel import Channel
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

#: A frame as aiormq's connection hands it to a channel, after the number of its bytes.
_Incoming = tuple[int, FrameType]


class ReceivedDelivery(NamedTuple):
    """A delivery, and the channel that it came on."""

    frame: Basic.Deliver
    properties: Basic.Properties
    body: bytes
    channel: AbstractChannel

    @property
    def tag(self) -> int:
        """The delivery's number on its channel."""
        return self.frame.delivery_tag or 0


Take = Callable[[Sequence[ReceivedDelivery]], None]


class JoinedDeliveries:
    """Replaces a channel's queue of incoming frames; the deliveries of one turn are handed over by one call.

    All frames that do not belong to a delivery of this consumer go to the queue, after the deliveries before them have
    been handed over: aiormq answers a closing channel or an ended consumer later than these.
    """

    def __init__(self, channel: Channel, queue: asyncio.Queue[_Incoming], tag: str, take: Take) -> None:
        self._channel = channel
        self.queue = queue
        self._tag = tag
        self._take = take
        self._frame: Basic.Deliver | None = None
        self._header: ContentHeader | None = None
        self._body = b""
        self._received: list[ReceivedDelivery] = []
        self.get, self.task_done = queue.get, queue.task_done

    async def put(self, incoming: _Incoming) -> None:
        """Take the next frame of the channel."""
        frame = incoming[1]
        if self._header and isinstance(frame, ContentBody):
            self._continue(self._header, frame.value)
        elif self._frame and isinstance(frame, ContentHeader):
            self._header, self._body = frame, b""
            if not frame.body_size:
                self._continue(frame, b"")
        elif isinstance(frame, Basic.Deliver) and frame.consumer_tag == self._tag:
            self._frame = frame
        else:
            self._frame = self._header = None  # only the end of the channel cuts a delivery off: it is redelivered
            self._hand_over()
            await self.queue.put(incoming)

    def _continue(self, header: ContentHeader, part: bytes) -> None:
        self._body = self._body + part if self._body else part
        if len(self._body) < header.body_size:
            return
        if self._frame and self._tag in self._channel.consumers:
            if not self._received:
                self._channel.loop.call_soon(self._hand_over)
            self._received.append(ReceivedDelivery(self._frame, header.properties, self._body, self._channel))
        self._frame = self._header = None

    def _hand_over(self) -> None:
        received, self._received = self._received, []
        if received and not self._channel.is_closed:  # else the broker redelivers them
            self._take(received)


async def consume(channel: AbstractChannel, queue: str, tag: str, take: Take) -> None:
    """Consume a queue under this tag; `take` is called with the deliveries of each turn."""
    assert isinstance(channel, Channel)  # noqa: S101 -- aiormq has no other; its abstract class lacks some attributes
    frames = getattr(channel, "frames", None)
    queue_of_frames = frames.queue if isinstance(frames, JoinedDeliveries) else frames  # a consumer ended before
    if isinstance(queue_of_frames, asyncio.Queue):
        joined = JoinedDeliveries(channel, queue_of_frames, tag, take)
        setattr(channel, "frames", joined)  # noqa: B010 -- to the type checker it is another's queue

    async def take_one(message: DeliveredMessage) -> None:
        assert isinstance(message.delivery, Basic.Deliver)  # noqa: S101 -- a consumer receives no other
        take([ReceivedDelivery(message.delivery, message.header.properties, message.body, message.channel)])

    await channel.basic_consume(queue, take_one, consumer_tag=tag)
