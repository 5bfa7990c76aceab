"""Channels as bulk channels are, with the frames of aiormq and pamqp: what a loop by hand gets from these libraries.

aiormq reads and parses each frame, pamqp builds each that is published; no task and no future is made for a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable
from typing import Any, cast

from aiormq.abc import AbstractChannel
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from benchmarks.bulk_amqp import BulkChannel, BulkConnection, Delivery, Found, Outgoing

Frame = tuple[int, Any]


class AiormqChannel(BulkChannel):
    """One channel, by pamqp's frames."""

    def publish(self, exchange: str, messages: Iterable[Outgoing], *, optional: Container[str] = ()) -> int:
        """Publish messages by one write, and return the number of the last."""
        number, frames = self.channel.number, []
        for message_id, key, body in messages:
            properties = commands.Basic.Properties("application/json", message_id=message_id, delivery_mode=2)
            mandatory = key not in optional
            frames += [
                marshal(commands.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory), number),
                marshal(ContentHeader(body_size=len(body), properties=properties), number),
                marshal(ContentBody(body), number),
            ]
            self.published += 1
        self.connection.write(b"".join(frames))
        return self.published

    def acknowledge(self, tag: int) -> None:
        """Acknowledge all deliveries up to this one."""
        self.connection.write(marshal(commands.Basic.Ack(tag, multiple=True), self.channel.number))


class AiormqConnection(BulkConnection):
    """One connection, read by aiormq."""

    is_parsed_in_bulk = False

    def wrap(self, channel: AbstractChannel) -> BulkChannel:
        """Take the channel's messages and confirms from the queue between its two readers."""
        wrapped = AiormqChannel(self, channel)
        queue = cast("asyncio.Queue[Frame]", getattr(channel, "frames"))  # noqa: B009 -- no part of aiormq's abstract class
        setattr(channel, "frames", _Frames(wrapped, queue))  # noqa: B010
        return wrapped


class _Frames:
    """Stands for a channel's queue of received frames; those of one turn of the event loop are handed over together."""

    def __init__(self, channel: BulkChannel, queue: asyncio.Queue[Frame]) -> None:
        self._channel, self._queue = channel, queue
        self._found: Found | None = None
        self._method: Any = None
        self._header: ContentHeader | None = None
        self.get, self.task_done = queue.get, queue.task_done

    async def put(self, received: Frame) -> None:
        """Take a frame that the connection has read."""
        frame = received[1]
        match frame:
            case commands.Basic.Deliver() | commands.Basic.Return():
                self._method = frame
            case ContentHeader() if self._method:
                self._header = frame
                if not frame.body_size:
                    self._take(b"")
            case ContentBody() if self._header:
                self._take(frame.value)
            case commands.Basic.Ack():
                self._of_this_turn().confirms.append((frame.delivery_tag, frame.multiple))
            case commands.Basic.Nack():
                raise RuntimeError("the broker refused a publish")
            case _:
                await self._queue.put(received)

    def _take(self, body: bytes) -> None:
        method, header = self._method, self._header
        self._method = self._header = None
        assert header
        message_id = header.properties.message_id or ""
        if isinstance(method, commands.Basic.Return):
            self._of_this_turn().returns.append(message_id)
        else:
            sent_at = header.properties.timestamp
            delivery = Delivery(method.delivery_tag, method.routing_key, message_id, body, sent_at)
            self._of_this_turn().deliveries.append(delivery)

    def _of_this_turn(self) -> Found:
        if self._found is None:
            self._found = Found()
            asyncio.get_running_loop().call_soon(self._hand_over)
        return self._found

    def _hand_over(self) -> None:
        found, self._found = self._found, None
        if found:
            self._channel.hand_over(found)
