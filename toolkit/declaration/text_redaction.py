"""Redact texts about an event, such as errors: they lose the event's sensitive values.

Any client may have written the body, so the search for its values in the text takes a bounded time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from toolkit.declaration.redaction import REDACTED, Declared, has_sensitive_fields, sensitive_values
from toolkit.declaration.value_forms import TooDeepError

#: Shorter values are redacted in a text only as whole words: a single character occurs in many.
_SHORT = 4
#: A value of one or two letters is redacted only where a text shows it as a value: in quotes, or behind one of these.
_LETTERS, _SHOWS = 2, ("'", '"', "=", ": ", "(", "`")
#: A text of this length may have been cut within a value; the rest of the value is redacted, too.
_CUT = 500
#: So many consecutive characters of a value are redacted wherever they occur, even if the rest of it was cut off.
_PART = 8
#: Marks the place where a text was cut.
_DOTS = re.compile(r"\.\.\.|…")
#: A longer text about an event is cut; this and the next two bounds keep the search for values short.
_LONGEST_TEXT = 10_000
#: The most sensitive values, and characters in them, that are searched for. Any client may send a body with more; a
#: text about it is withheld.
_MOST_VALUES, _MOST_CHARACTERS = 2_000, 50_000
#: Replaces a text about such a body.
WITHHELD = "(not shown: the message has more sensitive values than can be searched for)"
#: The input that Pydantic repeats in its errors; up to the text's end where the text was cut, which keeps the search
#: linear.
_INPUT = re.compile(r"input_value=.*?(?:, input_type=|\Z)", re.DOTALL)


def redact(declared: Declared, body: bytes | str | None, text: str) -> str:
    """Return a text about an event without the values of its sensitive fields, and without Pydantic's input values.

    The work is bounded for any body: a text is cut at 10,000 characters, and withheld where the body has too many
    sensitive values.
    """
    text = _INPUT.sub(f"input_value={REDACTED}, input_type=", text)
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
    """Return the values; one longer than the text counts with the text's length, since only a part of it fits.

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
    """Return a text with `***` for each of the values, in any case, and for each part of one."""
    folded, wanted = _folded(text), [_folded(value) for value in values]
    spans = [span for value in wanted for span in _spans(folded, value)]
    spans += _parts(folded, wanted)
    spans += _beginnings_and_ends(folded, wanted)
    shown, end = [], -1
    for start, stop in sorted(spans):
        if start > end:
            shown += [text[max(end, 0) : start], REDACTED]
        end = max(end, stop)
    return "".join([*shown, text[max(end, 0) :]])


def _parts(text: str, values: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield where `_PART` consecutive characters of a value occur: the value was cut, or is part of a longer word.

    Of very long values only the parts at each eighth character are searched for, which bounds the work; what remains
    of such a value is no longer than the parts that are never searched for.
    """
    there = {text[start : start + _PART] for start in range(len(text) - _PART + 1)}
    stride = 1 if sum(map(len, values)) <= _MOST_CHARACTERS else _PART
    found = {
        part
        for value in values
        for start in range(0, len(value) - _PART + 1, stride)
        if (part := value[start : start + _PART]) in there and _tells(part)
    }
    if found:
        yield from ((at, at + _PART) for at in range(len(text) - _PART + 1) if text[at : at + _PART] in found)


def _tells(part: str) -> bool:
    """Whether a part is more than spaces and lines, which occur everywhere."""
    return sum(each.isalnum() for each in part) * 2 >= _PART


def _beginnings_and_ends(text: str, values: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield the rest of a value beside dots that mark a cut, where the rest is shorter than a part."""
    cuts = [(cut.start(), cut.end()) for cut in _DOTS.finditer(text)]
    if not cuts:
        return
    lengths = range(_PART - 1, _SHORT - 1, -1)
    long = [value for value in values if len(value) >= _PART]
    beginnings = {value[:length] for value in long for length in lengths}
    ends = {value[-length:] for value in long for length in lengths}
    for start, stop in cuts:
        yield from ((start - length, start) for length in lengths if text[max(start - length, 0) : start] in beginnings)
        yield from ((stop, stop + length) for length in lengths if text[stop : stop + length] in ends)


def _folded(text: str) -> str:
    """Return a text with its case folded, each character at its own index."""
    folded = text.casefold()
    if len(folded) == len(text):
        return folded
    return "".join(one if len(one := each.casefold()) == 1 else each for each in text)


def _spans(text: str, value: str) -> Iterator[tuple[int, int]]:
    """Yield where a value occurs in a text, as start and end."""
    start = text.find(value)
    while start >= 0:
        stop = start + len(value)
        if len(value) >= _SHORT or (_is_word(text, start, stop) and _is_shown(text, start, value)):
            yield start, stop
        start = text.find(value, stop)
    if len(text) >= _CUT and len(value) >= _SHORT:
        yield from _cut_ends(text, value)


def _is_word(text: str, start: int, stop: int) -> bool:
    around = text[max(start - 1, 0) : start] + text[stop : stop + 1]
    return not any(each.isalnum() or each == "_" for each in around)


def _is_shown(text: str, start: int, value: str) -> bool:
    """Whether a short word is the value, rather than a word such as the article "a"."""
    is_letters = len(value) <= _LETTERS and value.isascii() and value.isalpha()
    return not is_letters or text.endswith(_SHOWS, 0, start)


def _cut_ends(text: str, value: str) -> Iterator[tuple[int, int]]:
    """Yield where the text was cut within the value: the value's longest prefix at its end, and vice versa."""
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
