"""Encode the frames that publish a message.

pamqp encodes every kind of frame from its description, field by field; a message's three frames cost it more than the
rest of a publish. A service's messages all have the same properties, so their places are fixed here. pamqp still
encodes what is rare (a header that is no text) and what is encoded once (the frame that names exchange and key); the
bytes are those that pamqp writes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pamqp import encode, frame
from pamqp.commands import Basic

from toolkit.messaging.envelope import WireMessage

#: The beginning of a frame: its type, its channel, and the size of what follows before the end mark.
_FRAME, _END = struct.Struct(">BHI"), b"\xce"
_HEADER_FRAME, _BODY_FRAME = 2, 3
#: The beginning of a content header: the class `basic`, a weight that is always 0, the body's size, and which
#: properties follow.
_CONTENT = struct.Struct(">HHQH")
_BASIC = 60
#: Which properties follow, in this order.
_FLAGS = Basic.Properties.flags
_ALWAYS = _FLAGS["content_type"] | _FLAGS["headers"] | _FLAGS["delivery_mode"] | _FLAGS["message_id"]
_CORRELATION_ID, _TIMESTAMP = _FLAGS["correlation_id"], _FLAGS["timestamp"]
_TYPE, _USER_ID = _FLAGS["message_type"], _FLAGS["user_id"]
_CONTENT_TYPE, _PERSISTENT = encode.short_string("application/json"), b"\x02"
_SIZE = struct.Struct(">I")
#: The longest short string, and the longest name of a header, in bytes.
_LONGEST, _LONGEST_NAME = 255, 128


def frames_of(
    message: WireMessage, *, message_id: str, exchange: str, login: str, channel: int, max_content_size: int
) -> bytes:
    """Return the frames that publish a persistent, mandatory message, with the login for the broker to verify.

    Raises:
        TypeError: AMQP has no encoding for a property or a header.
        ValueError: the headers do not fit into one frame; the broker would close the connection.
    """
    body = message.body
    flags, properties = _properties(message, message_id, login)
    header = _CONTENT.pack(_BASIC, 0, len(body), flags) + properties
    if len(header) > max_content_size:
        raise ValueError(f"{len(header)} bytes of headers, at most {max_content_size} fit into a frame")
    frames = [
        _publish_frame(channel, exchange, message.routing_key),
        _FRAME.pack(_HEADER_FRAME, channel, len(header)),
        header,
        _END,
    ]
    for start in range(0, len(body), max_content_size):
        part = body[start : start + max_content_size]
        frames += (_FRAME.pack(_BODY_FRAME, channel, len(part)), part, _END)
    return b"".join(frames)


@lru_cache(maxsize=1024)  # a service has some dozens; an operator may send messages under any key
def _publish_frame(channel: int, exchange: str, routing_key: str) -> bytes:
    return frame.marshal(Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True), channel)


def _properties(message: WireMessage, message_id: str, login: str) -> tuple[int, bytes]:
    """Return which properties a message has, and their values; an empty text is none."""
    flags, values = _ALWAYS, [_CONTENT_TYPE, _table(message.headers), _PERSISTENT]
    if message.correlation_id:
        flags |= _CORRELATION_ID
        values.append(_short(message.correlation_id))
    values.append(_short(message_id))
    if message.timestamp is not None:
        flags |= _TIMESTAMP
        values.append(encode.timestamp(message.timestamp))
    if message.type:
        flags |= _TYPE
        values.append(_short(message.type))
    if login:
        flags |= _USER_ID
        values.append(_short(login))
    return flags, b"".join(values)


def _table(headers: Mapping[str, Any]) -> bytes:
    entries: list[bytes] = []
    for name in sorted(headers):  # as pamqp does
        value = headers[name]
        if type(value) is str:
            text = value.encode()
            entries += (_name(name), b"S", _SIZE.pack(len(text)), text)
        else:
            entries += (_name(name), encode.encode_table_value(value))
    values = b"".join(entries)
    return _SIZE.pack(len(values)) + values


@lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    return encode.short_string(name.encode()[:_LONGEST_NAME].decode(errors="ignore"))


def _short(text: str) -> bytes:
    encoded = text.encode()
    # The library's error for a longer one names the limit.
    return bytes((len(encoded),)) + encoded if len(encoded) <= _LONGEST else encode.short_string(text)
