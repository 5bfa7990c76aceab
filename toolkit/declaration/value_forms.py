"""The forms in which a text may hold a value: as it is, escaped, as Python shows it, or in bytes."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from urllib.parse import quote, quote_plus

#: The types of a list in Python, and the types that JSON has.
LISTS = (list, tuple, set, frozenset)
IN_JSON = (str, int, float, bool, type(None), Mapping, *LISTS)
#: Deeper values are not searched: Python's own stack ends at about a thousand calls.
_DEEPEST = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: The usual formats of a date, beside Python's own.
_DATES = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d", "%Y%m%d", "%d %B %Y", "%B %d, %Y")
#: A number of fewer digits occurs in many texts; as an amount's part it is not searched for.
_FEWEST_DIGITS = 3
#: The separators within numbers of cards, phones and accounts, and the fewest digits of one.
_SEPARATORS, _LONG_NUMBER = str.maketrans("", "", " .-/"), 8
#: Of a longer value only the usual escapes are made; its encoded forms are found by their parts.
_LONG = 2_000


class TooDeepError(Exception):
    """A value is nested too deeply."""


def texts_of(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the forms of a value, and of each value in it; a map's keys are not searched.

    Raises:
        TooDeepError: it is nested too deeply.
    """
    if depth > _DEEPEST:
        raise TooDeepError
    if isinstance(value, (Mapping, *LISTS)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from texts_of(each, depth + 1)
    elif isinstance(value, Enum):
        yield from (value.name, str(value))
        yield from texts_of(value.value, depth + 1)
    elif isinstance(value, str):
        yield from (form for form in _forms(value) if form.strip())
    elif isinstance(value, bytes | bytearray):
        yield from (form for form in _forms_of_bytes(bytes(value)) if form)
    elif isinstance(value, Decimal | int | float) and not isinstance(value, bool):
        # An int's own forms are digits; as a float a large one would overflow.
        forms = () if isinstance(value, int) else (f"{value:f}", *_digits(value))
        yield from dict.fromkeys((str(value), f"{value:,}", *forms))
    elif isinstance(value, date):
        yield from dict.fromkeys((str(value), repr(value), *_forms_of_date(value)))
    elif value is not None and not isinstance(value, bool):
        yield from dict.fromkeys((str(value), repr(value)))


def _forms(value: str) -> set[str]:
    forms = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    forms |= {" ".join(value.splitlines()), value.strip()}  # an error is one line
    if (digits := value.translate(_SEPARATORS)).isdecimal() and len(digits) >= _LONG_NUMBER:
        forms.add(digits)
    if len(value) <= _LONG:
        data = value.encode(errors="replace")
        forms |= {quote(value, safe="", errors="replace"), quote_plus(value, errors="replace"), html.escape(value)}
        forms |= {ascii(value)[1:-1], repr(data)[2:-1]}
    return forms


def _digits(value: Decimal | float) -> Iterator[str]:
    """Yield an amount without its point, as in cents, and its whole part; short ones occur everywhere."""
    for text in (f"{value:f}", f"{value:.2f}"):
        whole, point, fraction = text.lstrip("-").partition(".")
        if point:
            yield from (each for each in (f"{whole}{fraction}".lstrip("0"), whole) if len(each) >= _FEWEST_DIGITS)


def _forms_of_date(value: date) -> Iterator[str]:
    yield from (f"{value:{form}}" for form in _DATES)
    yield f"{value.day}.{value.month}.{value.year}"
    if isinstance(value, datetime):
        since = value.replace(tzinfo=value.tzinfo or UTC) - _EPOCH
        yield from (value.isoformat(), f"{value:%H:%M:%S}", str(since // timedelta(seconds=1)))


def _forms_of_bytes(value: bytes) -> set[str]:
    return {repr(value)[2:-1], value.hex(), base64.b64encode(value).decode(), value.decode(errors="replace")}
