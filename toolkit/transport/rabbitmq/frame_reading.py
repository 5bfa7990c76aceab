"""Let the client library cut all frames out of what one read of the socket returned.

aiormq awaits three reads for each frame, copies it twice, and lets pamqp decode it field by field: half of what the
library does for a delivery. On the toolkit's connections this replaces its public class `FrameReceiver`; a library
without it reads as it did.

The frames of a delivery and of a confirm are decoded here. All others, and each one that is not as usual, are left to
pamqp, so that malformed ones end as they did.
"""

from __future__ import annotations

import asyncio
import struct
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Self

import pamqp.frame
from aiormq import connection
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError, ProtocolSyntaxError
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader

from toolkit.transport.rabbitmq.own_connections import is_own

#: A frame with the number of its bytes and its channel.
ReceivedFrame = tuple[int, int, Any]

#: At most so many bytes are taken by one read, as much as asyncio keeps.
_MOST = 65_536
_PREFIX = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY, _END = 1, 2, 3, 0xCE
_DELIVER, _ACK = struct.pack(">HH", 60, 60), struct.pack(">HH", 60, 80)
_TAG = struct.Struct(">QB")
_CONTENT = struct.Struct(">HHQH")
_LENGTH = struct.Struct(">I")
_TIME = struct.Struct(">Q")
#: The types of numbers in a header table, as pamqp reads them.
_NUMBERS = {
    ord(sign): struct.Struct(f">{code}")
    for sign, code in zip("tbBsuIilL", "?bBhHiIqq", strict=True)
}  # fmt: skip
_TEXT = ord("S")
#: The properties in the order of their bits, the highest first.
_PROPERTIES = sorted(Basic.Properties.flags.items(), key=lambda each: -each[1])
#: The last bit of the flags: more flags follow.
_MORE = 1
#: A later time is one in milliseconds.
_LATEST = 0xFFFFFFFF


class UnusualError(Exception):
    """A frame that pamqp has to decode."""


class FrameReader:
    """Reads the frames of one connection, as aiormq's `FrameReceiver`."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._data = b""
        self._at = 0
        self._is_started = False

    def __aiter__(self) -> Self:
        return self

    async def get_frame(self) -> ReceivedFrame:
        """Return the next frame.

        Raises:
            StopAsyncIteration: the broker has closed the connection between two frames.
            AMQPConnectionError: the connection was lost.
        """
        while True:
            data, at = self._data, self._at
            if len(data) - at >= _PREFIX.size:
                kind, channel, size = _PREFIX.unpack_from(data, at)
                if not self._is_started or not kind:
                    self._check_start(data)
                start = at + _PREFIX.size
                end = start + size
                if len(data) > end:
                    self._at = end + 1
                    return end + 1 - at, channel, _frame(data, kind, start, end)
            await self._read()

    __anext__ = get_frame

    async def _read(self) -> None:
        rest = self._data[self._at :]
        if not rest and self._reader.at_eof():
            raise StopAsyncIteration
        try:
            more = await self._reader.read(_MOST)
        except OSError as error:
            raise AMQPConnectionError(f"Server connection lost: {error!r}") from error
        if not more:
            raise AMQPConnectionError(f"Server connection unexpectedly closed after {len(rest)} bytes of a frame")
        self._data, self._at = rest + more, 0

    def _check_start(self, data: bytes) -> None:
        if data.startswith(b"AMQP"):
            raise ProtocolSyntaxError("Unexpected AMQP protocol header")
        if not data[self._at]:
            raise InvalidFrameError(data[self._at :])
        self._is_started = True


def read_frames_at_once() -> None:
    """Let the library read the frames of the toolkit's connections this way; once suffices."""
    if _USUAL is not None:
        setattr(connection, "FrameReceiver", _receiver)  # noqa: B010 -- to the type checker it is a class


def _receiver(reader: asyncio.StreamReader) -> Any:
    return FrameReader(reader) if is_own() else _USUAL(reader)


#: The library's class, which a connection of the application gets.
_USUAL: Any = getattr(connection, "FrameReceiver", None)


def _frame(data: bytes, kind: int, start: int, end: int) -> Any:
    try:
        if data[end] != _END:
            raise UnusualError
        if kind == _BODY and end > start:
            return ContentBody(data[start:end])
        if kind == _HEADER:
            return _content_header(data, start, end)
        method = data[start : start + 4] if kind == _METHOD else b""
        if method == _DELIVER:
            return _deliver(data, start + 4, end)
        if method == _ACK:
            return _ack(data, start + 4, end)
    except (UnusualError, ValueError, IndexError, struct.error, OverflowError, OSError):
        pass  # pamqp decides what it is
    try:
        return pamqp.frame.unmarshal(data[start - _PREFIX.size : end + 1])[2]
    except PAMQPException as error:
        raise InvalidFrameError(str(error)) from error


def _deliver(data: bytes, at: int, end: int) -> Basic.Deliver:
    frame = Basic.Deliver.__new__(Basic.Deliver)
    frame.consumer_tag, at = _short_text(data, at)
    frame.delivery_tag, bits = _TAG.unpack_from(data, at)
    frame.redelivered = bool(bits & 1)
    frame.exchange, at = _short_text(data, at + _TAG.size)
    frame.routing_key, at = _short_text(data, at)
    if at != end:
        raise UnusualError
    return frame


def _ack(data: bytes, at: int, end: int) -> Basic.Ack:
    frame = Basic.Ack.__new__(Basic.Ack)
    frame.delivery_tag, bits = _TAG.unpack_from(data, at)
    frame.multiple = bool(bits & 1)
    if at + _TAG.size != end:
        raise UnusualError
    return frame


def _content_header(data: bytes, at: int, end: int) -> ContentHeader:
    header = ContentHeader.__new__(ContentHeader)
    header.class_id, header.weight, header.body_size, flags = _CONTENT.unpack_from(data, at)
    at += _CONTENT.size
    header.properties = properties = Basic.Properties()
    value: Any
    for name, kind in _fields(flags):
        if kind == "shortstr":
            value, at = _short_text(data, at)
        elif kind == "table":
            value, at = _table(data, at)
        elif kind == "octet":
            value, at = data[at], at + 1
        else:
            value, at = _timestamp(data, at)
        setattr(properties, name, value)
    if at != end:
        raise UnusualError
    return header


@lru_cache(maxsize=256)
def _fields(flags: int) -> tuple[tuple[str, str], ...]:
    """Return the names and types of the properties that these flags announce."""
    if flags & _MORE:
        raise UnusualError
    return tuple((name, Basic.Properties.amqp_type(name)) for name, bit in _PROPERTIES if flags & bit)


def _short_text(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(), end


def _timestamp(data: bytes, at: int) -> tuple[datetime, int]:
    (seconds,) = _TIME.unpack_from(data, at)
    if seconds > _LATEST:
        raise UnusualError
    return datetime.fromtimestamp(seconds, UTC), at + _TIME.size


def _table(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    """Return a table of texts and numbers."""
    end = at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
    at += _LENGTH.size
    table: dict[str, Any] = {}
    while at < end:
        name, at = _short_text(data, at)
        if data[at] == _TEXT:
            start = at + 1 + _LENGTH.size
            at = start + _LENGTH.unpack_from(data, at + 1)[0]
            table[name] = data[start:at].decode()
        elif number := _NUMBERS.get(data[at]):
            (table[name],) = number.unpack_from(data, at + 1)
            at += 1 + number.size
        else:
            raise UnusualError
    if at != end:
        raise UnusualError
    return table, end
