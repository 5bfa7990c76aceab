"""Typed values from AMQP headers: clients send a text, a number or a time as one of several AMQP types.

Raises an `UnreadableError` for a value that can't be converted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from toolkit.errors import UnreadableError
from toolkit.messaging.envelope import LONGEST_TEXT

#: The years that a time in a message may have: from the epoch of AMQP's timestamps to one that no timeout reaches.
_FIRST_YEAR, _LAST_YEAR = 1970, 2999

#: The end of the last year, in seconds since the epoch.
_LAST_SECOND = datetime(_LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()

#: AMQP's names for the types that its client library makes of a header.
_TYPES: dict[type, str] = {
    bool: "a boolean", int: "an integer", float: "a float", Decimal: "a decimal", datetime: "a timestamp",
    str: "a text", list: "an array", dict: "a table",
}  # fmt: skip

#: The digits that each of AMQP's integer types holds.
_DIGITS = 18
_LARGEST = 10**_DIGITS

#: A longer value is not repeated in an error.
_MOST_SHOWN = 40


def text_of(headers: Mapping[str, Any], name: str) -> str | None:
    """Return a header as a text; None when it is missing."""
    value = headers.get(name)
    if value is None:
        return None
    if type(value) is not str:  # nearly all texts come as one
        value = _plain(value)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _broken(name, value, "a text")
    return printable(str(value), name)


def _plain(value: Any) -> Any:
    """Return bytes as a text: clients have three AMQP types for a text."""
    return bytes(value).decode(errors="replace") if isinstance(value, bytes | bytearray) else value


def _broken(name: str, value: object, cure: str) -> UnreadableError:
    """Return the error for a header of the wrong type or value, with its name, its type and the cure."""
    shown = repr(value)
    # The beginning of a long value may be part of a secret that redaction would not recognise.
    if len(shown) > _MOST_SHOWN:
        shown = f"a text of {len(value)} characters" if isinstance(value, str) else "too long to be shown"
    return UnreadableError("broken header", f"{name} is {shown}, {_type_of(value)}, not {cure}")


def _type_of(value: object) -> str:
    return next((word for kind, word in _TYPES.items() if isinstance(value, kind)), "a value of no AMQP type")


def printable(value: str, name: str) -> str:
    """Return a text that can be stored and shown."""
    # PostgreSQL stores no NUL in a text, and the other unprintable characters would be invisible in every output.
    if len(value) > LONGEST_TEXT or not value.isprintable():
        raise UnreadableError("broken header", f"{name} is not a printable text of at most {LONGEST_TEXT} characters")
    return value


def number_of(headers: Mapping[str, Any], name: str, *, default: int) -> int:
    """Return a header as a whole number; the default when it is missing."""
    value = headers.get(name)
    if value is None:
        return default
    if type(value) is int and 0 <= value < _LARGEST:
        return value
    value = _plain(value)
    is_whole = isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value)
    text = str(int(value)) if is_whole else str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise _broken(name, value, f"a whole number of up to {_DIGITS} digits, from 0")
    return int(text)


def time_of(headers: Mapping[str, Any], name: str) -> datetime | None:
    """Return a header as a time with its zone, UTC when it names none; None when it is missing."""
    value = _plain(headers.get(name))
    if value is None:
        return None
    try:
        moment = _moment(value)
    except (ValueError, OverflowError, OSError) as error:
        raise _broken(name, value, "a time in ISO 8601, a timestamp, or seconds since 1970") from error
    return plausible(moment if moment.tzinfo else moment.replace(tzinfo=UTC), name)


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        seconds = float(value)  # a number beyond the last year counts as milliseconds
        return datetime.fromtimestamp(seconds if seconds < _LAST_SECOND else seconds / 1000, UTC)
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    raise ValueError("not a time")


def plausible(moment: datetime, name: str) -> datetime:
    """Return a time that arithmetic can use."""
    # Near the ends of the calendar adding a timeout, or changing the zone, raises.
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise UnreadableError("broken header", f"{name} is {moment}, not between {_FIRST_YEAR} and {_LAST_YEAR}")
    return moment
