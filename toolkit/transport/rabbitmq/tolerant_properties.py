"""Let the client library decode malformed properties, so that one of them costs one message and no connection.

The library decodes properties before its caller receives the message, and an error there closes the connection: every
consumer on it stops, the broker redelivers the message, and so on up to the delivery limit. With this patch a property
that can't be decoded gets a value that the toolkit's decoder rejects: its message becomes a dead letter. A connection
of the application ends as before.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pamqp import decode

from toolkit.messaging.decoding import UNDECODABLE
from toolkit.transport.rabbitmq.own_connections import is_own

Decoded = tuple[int, Any]

#: In place of a header table that can't be decoded; the decoder rejects it.
_NO_HEADERS = {UNDECODABLE: True}
#: In place of a timestamp out of bounds: before the earliest time that the decoder accepts.
_NO_TIME = datetime(1, 1, 1, tzinfo=UTC)
#: What the library's decoders raise.
_UNDECODABLE = (ValueError, OverflowError, OSError, ArithmeticError, RecursionError, struct.error)


def tolerate_malformed_properties() -> None:
    """Replace the library's decoders of properties by ones that do not raise on the toolkit's connections."""
    timestamp = _or(decode.timestamp, lambda _: (8, _NO_TIME))
    decode.TABLE_MAPPING[b"T"] = timestamp  # within the headers: a value out of bounds costs no other header
    decode.METHODS.update(
        timestamp=timestamp,
        shortstr=_or(decode.short_str, lambda value: (1 + value[0], value[1 : 1 + value[0]].decode(errors="replace"))),
        table=_or(decode.field_table, lambda value: (4 + struct.unpack(">I", value[:4])[0], dict(_NO_HEADERS))),
    )


def _or(decoder: Callable[[bytes], Decoded], instead: Callable[[bytes], Decoded]) -> Callable[[bytes], Decoded]:
    def decoded(value: bytes) -> Decoded:
        try:
            return decoder(value)
        except _UNDECODABLE:
            if not is_own():
                raise
            return instead(value)

    return decoded
