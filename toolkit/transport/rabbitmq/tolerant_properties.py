"""Read whatever properties a broker passes on, so that one malformed property costs one message.

The client library decodes properties before anybody can look at the message, and an error there closes the
connection: every consumer on it stops, the broker delivers the message again, and so on up to the delivery limit.
Here a property that can't be decoded becomes one that no reader takes for good: its message is a dead letter.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pamqp import decode

from toolkit.messaging.decoding import UNDECODABLE

Decoded = tuple[int, Any]

#: What stands for a header table that can't be decoded, so that the message is not taken.
_NO_HEADERS = {UNDECODABLE: True}
#: What stands for a timestamp that can't be: before all that a message may say of a time.
_NO_TIME = datetime(1, 1, 1, tzinfo=UTC)
#: What the library's decoders raise.
_UNDECODABLE = (ValueError, OverflowError, OSError, ArithmeticError, RecursionError, struct.error)


def tolerate_malformed_properties() -> None:
    """Have the library's decoders of properties answer where they would raise."""
    timestamp = _or(decode.timestamp, lambda _: (8, _NO_TIME))
    decode.TABLE_MAPPING[b"T"] = timestamp  # within the headers: one that is out of bounds costs none of the others
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
            return instead(value)

    return decoded
