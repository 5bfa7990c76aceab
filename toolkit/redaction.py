"""A text about an event, an error say, without the event's sensitive values.

The body may be any client's: whatever it holds, the search for its values in the text takes a bounded time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from toolkit.masking import MASK, Declared, TooDeepError, has_sensitive_fields, sensitive_values

#: Shorter values are masked in a text only where they stand as a word: one letter stands in many.
_SHORT = 4
#: A text that long may have been cut, and a value with it; what is left of one shall not show either.
_CUT = 500
#: A longer text about an event is cut: with the next two bounds it keeps the search for values short.
_LONGEST_TEXT = 10_000
#: So many sensitive values, and characters of them, are searched for in a text. A body with more is withheld from it,
#: since any client may send one.
_MOST_VALUES, _MOST_CHARACTERS = 2_000, 50_000
#: What stands for a text about such a body.
WITHHELD = "(not shown: the message has more sensitive values than can be searched for)"
#: What Pydantic repeats of its input; up to the text's end where the text was cut, so that no search begins in vain.
_INPUT = re.compile(r"input_value=.*?(?:, input_type=|\Z)", re.DOTALL)


def redact(declared: Declared, body: bytes | str | None, text: str) -> str:
    """Return a text about an event without the values of its sensitive fields, and without any input of Pydantic's.

    The work is bounded whatever the body holds: a text is cut at 10,000 characters, and withheld where the body has
    too many sensitive values.
    """
    text = _INPUT.sub(f"input_value={MASK}, input_type=", text)
    if declared is None or not has_sensitive_fields(declared):
        return text
    text = text[:_LONGEST_TEXT]
    try:
        hidden = _bounded(sensitive_values(declared, body), longest=len(text))
    except (_TooMuchError, TooDeepError):
        return WITHHELD
    return _without(text, hidden)


class _TooMuchError(Exception):
    """A body has more sensitive values than are searched for."""


def _bounded(values: Iterator[str], *, longest: int) -> frozenset[str]:
    """Return the values; of one that is longer than a text only its ends can stand there.

    Raises:
        _TooMuchError: there are too many of them.
    """
    found: set[str] = set()
    room = _MOST_CHARACTERS
    for value in values:
        if value in found:
            continue
        found.add(value)
        room -= min(len(value), longest)
        if len(found) > _MOST_VALUES or room < 0:
            raise _TooMuchError
    return frozenset(found)


def _without(text: str, values: Collection[str]) -> str:
    """Return a text with `***` for each of the values, in whichever case, and for what is left of one at its ends."""
    folded = _folded(text)
    spans = [span for value in values for span in _spans(folded, _folded(value))]
    shown, end = [], 0
    for start, stop in sorted(spans):
        if start >= end:
            shown += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*shown, text[end:]])


def _folded(text: str) -> str:
    """Return a text without the difference of case, each character at its own place."""
    folded = text.casefold()
    if len(folded) == len(text):
        return folded
    return "".join(one if len(one := each.casefold()) == 1 else each for each in text)


def _spans(text: str, value: str) -> Iterator[tuple[int, int]]:
    """Yield where a value stands in a text: from here to there."""
    start = text.find(value)
    while start >= 0:
        stop = start + len(value)
        if len(value) >= _SHORT or _is_word(text, start, stop):
            yield start, stop
        start = text.find(value, stop)
    if len(text) >= _CUT and len(value) >= _SHORT:
        yield from _cut_ends(text, value)


def _is_word(text: str, start: int, stop: int) -> bool:
    around = text[max(start - 1, 0) : start] + text[stop : stop + 1]
    return not any(each.isalnum() or each == "_" for each in around)


def _cut_ends(text: str, value: str) -> Iterator[tuple[int, int]]:
    """Yield where the text was cut off within the value: the value's longest beginning at its end, and vice versa."""
    least = _SHORT - 1
    start = text.find(value[:least], max(len(text) - len(value) + 1, 0))
    while start >= 0:
        if value.startswith(text[start:]):
            yield start, len(text)
            break
        start = text.find(value[:least], start + 1)
    stop = text.rfind(value[-least:], 0, len(value) - 1) + least
    while stop >= least:
        if value.endswith(text[:stop]):
            yield 0, stop
            break
        stop = text.rfind(value[-least:], 0, stop - 1) + least
