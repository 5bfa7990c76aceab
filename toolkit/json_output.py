"""Serialize data as the JSON that leaves the process: on standard output, in HTTP answers, on the console's pages.

The text parses to the same data and can't control a terminal: terminals obey C1 controls as they obey ESC, and
bidirectional controls reorder the shown text. JSON permits them in strings; here they are written as `\\uXXXX`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

#: DEL and the C1 controls; the bidirectional marks, embeddings, overrides and isolates; the line and paragraph
#: separators; lone surrogates, which UTF-8 can't carry. pydantic and json escape the C0 controls themselves.
_STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def as_json(content: Any, *, indent: int | None = None) -> str:
    """Return data as JSON, in one line or indented by so many spaces; it encodes as UTF-8.

    It accepts the types that pydantic serializes: models, dataclasses, times, enums.

    Raises:
        ValueError: the data has another type.
    """
    return _STEERING.sub(_escaped, _serialized(content, indent))


def _serialized(content: Any, indent: int | None) -> str:
    try:
        return to_json(content, indent=indent).decode()
    except PydanticSerializationError:
        # One reason is a lone surrogate, which a sender may write as "\ud800". json accepts it, and is slower.
        separators = (",", ":") if indent is None else None
        return json.dumps(content, indent=indent, separators=separators, ensure_ascii=False, default=to_jsonable_python)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
