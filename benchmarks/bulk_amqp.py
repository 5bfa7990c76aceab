"""AMQP in bulk, for the client and for the loops written by hand: the frames of one read are handled together.

aiormq connects, declares and binds. Deliveries, confirms and returned messages are taken out of the byte stream before
aiormq parses it, and publishes are built as bytes: no task, no future and no object of pamqp's for a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable
from datetime import datetime
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple, Self

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.connection import TransportFactory
from yarl import URL

_FRAME, _METHOD, _TAG, _SIZE = Struct(">BHI"), Struct(">HH"), Struct(">Q"), Struct(">I")
_CONTENT = Struct(">HHQH")  # of a header frame: class, weight, size of the body, flags of the properties
_METHOD_FRAME, _HEADER_FRAME, _BODY_FRAME, _END = 1, 2, 3, b"\xce"
_BASIC, _PUBLISH, _RETURN, _DELIVER, _ACK, _NACK = 60, 40, 50, 60, 80, 120
_TAKEN = {(_BASIC, _RETURN), (_BASIC, _DELIVER), (_BASIC, _ACK), (_BASIC, _NACK)}
#: The flags of the properties before the message id, by order on the wire: short strings, a table and two octets.
_CONTENT_TYPE, _ENCODING, _HEADERS, _DELIVERY_MODE, _PRIORITY = 0x8000, 0x4000, 0x2000, 0x1000, 0x0800
_CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID = 0x0400, 0x0200, 0x0100, 0x0080
#: Seconds; longer than any measurement.
_HEARTBEAT = 3_600


class Delivery(NamedTuple):
    """A message as it arrived; `tag` numbers the channel's deliveries from 1.

    `sent_at` is its timestamp; None where the stream is parsed in bulk.
    """

    tag: int
    routing_key: str
    message_id: str
    body: bytes
    sent_at: datetime | None = None


class Outgoing(NamedTuple):
    """A message to publish."""

    message_id: str
    routing_key: str
    body: bytes


def _ignore(_: Any) -> None:
    """Ignore what a channel that has no use for it receives."""


class Found:
    """What one read, or one turn of the event loop, brought to a channel."""

    __slots__ = ("confirms", "deliveries", "returns")

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.confirms: list[tuple[int, bool]] = []
        self.returns: list[str] = []


class BulkChannel:
    """One channel: each callback gets all that one read brought.

    - `on_deliveries`: the deliveries.
    - `on_confirms`: the numbers of the publishes that the broker confirmed, each with whether all before are too.
    - `on_returns`: the ids of the messages that no queue took.
    """

    def __init__(self, connection: BulkConnection, channel: AbstractChannel) -> None:
        self.channel = channel
        self.published = 0
        self.on_deliveries: Callable[[list[Delivery]], None] = _ignore
        self.on_confirms: Callable[[list[tuple[int, bool]]], None] = _ignore
        self.on_returns: Callable[[list[str]], None] = _ignore
        self.connection = connection

    async def consume(self, queue: str, on_deliveries: Callable[[list[Delivery]], None], *, no_ack: bool) -> None:
        """Consume a queue."""
        self.on_deliveries = on_deliveries
        await self.channel.basic_consume(queue, _unused, no_ack=no_ack)

    def publish(self, exchange: str, messages: Iterable[Outgoing], *, optional: Container[str] = ()) -> int:
        """Publish messages by one write, and return the number of the last.

        No queue has to be bound to the `optional` keys; under any other, a message that no queue takes is returned.
        """
        number, frames = self.channel.number, []
        for message_id, key, body in messages:
            name = message_id.encode()
            frames += (
                _publish_frame(number, exchange, key, key not in optional),
                _FRAME.pack(_HEADER_FRAME, number, 33 + len(name)),
                _CONTENT.pack(_BASIC, 0, len(body), _CONTENT_TYPE | _DELIVERY_MODE | _MESSAGE_ID),
                b"\x10application/json\x02", len(name).to_bytes(1), name, _END,
                _FRAME.pack(_BODY_FRAME, number, len(body)), body, _END,
            )  # fmt: skip
            self.published += 1
        self.connection.write(b"".join(frames))
        return self.published

    def hand_over(self, found: Found) -> None:
        """Call the callbacks; a returned message comes before its confirm, which the broker sends all the same."""
        if found.returns:
            self.on_returns(found.returns)
        if found.confirms:
            self.on_confirms(found.confirms)
        if found.deliveries:
            self.on_deliveries(found.deliveries)

    def acknowledge(self, tag: int) -> None:
        """Acknowledge all deliveries up to this one."""
        method = _METHOD.pack(_BASIC, _ACK) + _TAG.pack(tag) + b"\x01"
        self.connection.write(_FRAME.pack(_METHOD_FRAME, self.channel.number, len(method)) + method + _END)


class BulkConnection:
    """One connection to the broker."""

    #: Whether messages and confirms are taken out of the byte stream, or aiormq parses them.
    is_parsed_in_bulk = True

    def __init__(self, connection: AbstractConnection, stream: _Stream) -> None:
        self._connection, self._stream = connection, stream

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Connect, almost without heartbeats: aiormq does not see the frames that would count as one."""
        stream = _Stream()
        connection = await aiormq.connect(URL(url).update_query(heartbeat=_HEARTBEAT), transport_factory=stream)
        return cls(connection, stream)

    async def channel(self, *, prefetch: int = 0, confirms: bool = False) -> BulkChannel:
        """Open a channel."""
        opened = await self._connection.channel(publisher_confirms=confirms)
        if prefetch:
            await opened.basic_qos(prefetch_count=prefetch)
        channel = self.wrap(opened)
        if self.is_parsed_in_bulk:
            self._stream.channels[opened.number] = channel
        return channel

    def wrap(self, channel: AbstractChannel) -> BulkChannel:
        """Return a bulk channel on one of aiormq's."""
        return BulkChannel(self, channel)

    def write(self, frames: bytes) -> None:
        """Write whole frames; aiormq, too, writes only whole ones."""
        self._stream.transport.write(frames)

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()


class _Stream(TransportFactory):
    """What a connection reads and writes."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.channels: dict[int, BulkChannel] = {}

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, as aiormq asks for it."""
        loop = asyncio.get_running_loop()
        reader = _Reader(self.channels)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        self.transport, _protocol = await loop.create_connection(lambda: protocol, url.host, url.port)
        return reader, asyncio.StreamWriter(self.transport, protocol, reader, loop)


class _Reader(asyncio.StreamReader):
    """Parts a byte stream: the bulk channels' messages and confirms go to these, all other frames to aiormq."""

    def __init__(self, channels: dict[int, BulkChannel]) -> None:
        super().__init__(limit=2**24)
        self._channels = channels
        self._rest = b""

    def feed_data(self, data: bytes) -> None:
        """Handle all complete frames, and keep the rest for the next read."""
        data = self._rest + bytes(data)
        at, found = 0, dict[int, Found]()
        while (end := _end_of_frame(data, at)) is not None:
            kind, number, _size = _FRAME.unpack_from(data, at)
            method = _METHOD.unpack_from(data, at + 7) if kind == _METHOD_FRAME and number in self._channels else None
            if method in _TAKEN:
                if (end := _take(found.setdefault(number, Found()), method[1], data, at, end)) is None:
                    break
            else:
                super().feed_data(data[at:end])
            at = end
        self._rest = data[at:]
        for number, each in found.items():
            self._channels[number].hand_over(each)


def _end_of_frame(data: bytes, at: int) -> int | None:
    if len(data) < at + 7:
        return None
    end = at + 8 + int(_SIZE.unpack_from(data, at + 3)[0])
    return end if len(data) >= end else None


def _take(found: Found, method: int, data: bytes, at: int, end: int) -> int | None:
    """Take a confirm, or a message with its header and body; return where the next frame begins."""
    if method in {_ACK, _NACK}:
        if method == _NACK:
            raise RuntimeError("the broker refused a publish")
        found.confirms.append((_TAG.unpack_from(data, at + 11)[0], data[at + 19] & 1 == 1))
        return end
    header, header_end = end, _end_of_frame(data, end)
    if header_end is None:
        return None
    _class, _weight, size, flags = _CONTENT.unpack_from(data, header + 7)
    end_of_body = header_end + size + 8 if size else header_end
    if len(data) < end_of_body:
        return None
    body = data[header_end + 7 : end_of_body - 1] if size else b""
    message_id = _message_id(data, header + 21, flags)
    if method == _RETURN:
        found.returns.append(message_id)
        return end_of_body
    tag_at = at + 12 + data[at + 11]  # behind the consumer's tag
    key_at = tag_at + 10 + data[tag_at + 9]  # behind the number, the redelivered flag and the exchange
    key = data[key_at + 1 : key_at + 1 + data[key_at]].decode()
    found.deliveries.append(Delivery(_TAG.unpack_from(data, tag_at)[0], key, message_id, body))
    return end_of_body


def _message_id(data: bytes, at: int, flags: int) -> str:
    for flag in (_CONTENT_TYPE, _ENCODING):
        if flags & flag:
            at += 1 + data[at]
    if flags & _HEADERS:
        at += 4 + int(_SIZE.unpack_from(data, at)[0])
    at += bool(flags & _DELIVERY_MODE) + bool(flags & _PRIORITY)
    for flag in (_CORRELATION_ID, _REPLY_TO, _EXPIRATION):
        if flags & flag:
            at += 1 + data[at]
    return data[at + 1 : at + 1 + data[at]].decode() if flags & _MESSAGE_ID else ""


@lru_cache(1_000)
def _publish_frame(number: int, exchange: str, key: str, mandatory: bool) -> bytes:
    texts = b"".join(len(each.encode()).to_bytes(1) + each.encode() for each in (exchange, key))
    method = _METHOD.pack(_BASIC, _PUBLISH) + b"\x00\x00" + texts + bytes([mandatory])
    return _FRAME.pack(_METHOD_FRAME, number, len(method)) + method + _END


async def _unused(_: object) -> None:
    """Stand for the consumer that aiormq wants, which is never called."""
