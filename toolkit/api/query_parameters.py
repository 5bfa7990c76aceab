"""Query parameters: their descriptions for the OpenAPI document, and their parsing.

Raises QueryError, which names the allowed values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from toolkit.api.responses import QueryError
from toolkit.configuration.settings import LONGEST_WAIT, Duration
from toolkit.declaration.events import SagaState
from toolkit.operations.attention import Attention

E = TypeVar("E", bound=StrEnum)

DEFAULT_LIMIT = 100
#: Enough for a page; a client that needs more continues with the next one.
MAX_LIMIT = 1_000

#: The digits of the largest row number; more would exceed BIGINT.
_LONGEST_ROW = 18
#: No sensible id, step or reason is longer; and PostgreSQL stores no NUL.
_LONGEST_TEXT = 500
_IS_TEXT = re.compile(rf"[^\x00-\x1f\x7f-\x9f]{{0,{_LONGEST_TEXT}}}")
TEXT = {"type": "string", "maxLength": _LONGEST_TEXT, "pattern": r"^[^\x00-\x1f\x7f-\x9f]*$"}
#: A duration in the usual notation, or seconds; `PT5M` is accepted, too.
SPAN = {
    "anyOf": [
        {"type": "string", "pattern": r"^[0-9]{1,3}(s|min|h|d)$"},
        {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT.total_seconds()},
    ],
    "examples": ["10min"],
}

_DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter, as the OpenAPI document describes it."""

    name: str
    description: str
    schema: dict[str, Any]
    is_list: bool = False


def text(name: str, description: str) -> Parameter:
    """Return a parameter for text without control characters."""
    return Parameter(name, description, TEXT)


def choice(name: str, description: str, among: type[StrEnum]) -> Parameter:
    """Return a parameter for one of these values."""
    return Parameter(name, description, {"type": "string", "enum": [each.value for each in among]})


LIMIT = Parameter(
    "limit",
    "The most rows to return.",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
)
ROW_CURSOR = Parameter(
    "cursor",
    "The `next` of the previous page.",
    {"type": "string", "pattern": rf"^[0-9]{{1,{_LONGEST_ROW}}}$"},
)
AFTER = Parameter(
    "after",
    "Pages from the oldest entry: first 0, then the `next` of the previous page.",
    {"type": "integer", "minimum": 0, "maximum": 10**_LONGEST_ROW - 1},
)


def limit_of(request: Request) -> int:
    """Return the requested number of rows."""
    value = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (_is_row(value) and 1 <= int(value) <= MAX_LIMIT):
        raise QueryError(f"limit={value!r} is not allowed: take a whole number from 1 to {MAX_LIMIT}")
    return int(value)


def row_of(request: Request, name: str) -> int | None:
    """Return a row's number, or None without the parameter."""
    value = request.query_params.get(name)
    if value is None:
        return None
    if not _is_row(value):
        raise QueryError(f"{name}={value!r} is not allowed: take 0, or the `next` of the previous page")
    return int(value)


def text_of(request: Request, name: str) -> str | None:
    """Return a text, or None without the parameter."""
    value = request.query_params.get(name)
    return None if value is None else printable(value, name)


def printable(value: str, name: str) -> str:
    """Return a text that each database accepts in a query."""
    if not _IS_TEXT.fullmatch(value):
        raise QueryError(
            f"{name}={value[:_LONGEST_TEXT]!r} is not allowed: take printable text of 500 characters at most"
        )
    return value


def choice_of(request: Request, name: str, among: type[E]) -> E | None:
    """Return one of these values, or None without the parameter."""
    value = request.query_params.get(name)
    if value is None:
        return None
    try:
        return among(value)
    except ValueError as error:
        raise QueryError(f"{name}={value!r} is not allowed: take one of {', '.join(among)}") from error


def span_of(request: Request, name: str, *, longest: timedelta) -> timedelta | None:
    """Return a duration from zero up, or None without the parameter."""
    value = request.query_params.get(name)
    if value is None:
        return None
    try:
        found = _DURATION.validate_python(value)
    except (ValidationError, OverflowError):
        found = None
    if found is None or not timedelta(0) <= found <= longest or _is_number_beyond(value, longest):
        raise QueryError(f"{name}={value!r} is not allowed: take a duration such as 90s, 5min, 1h or 30d")
    return found


def _is_number_beyond(value: str, longest: timedelta) -> bool:
    """Whether it is a number of seconds out of bounds by less than the resolution of a duration."""
    try:
        return not 0 <= float(value) <= longest.total_seconds()
    except ValueError:
        return False


def moment_of(request: Request, name: str) -> datetime | None:
    """Return a time, or None without the parameter."""
    value = request.query_params.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("it names no zone")
        return in_utc(moment)
    except ValueError as error:
        raise QueryError(f"{name}={value!r} is not allowed: take a time in ISO 8601 with its zone") from error


def in_utc(moment: datetime) -> datetime:
    """Return a time in UTC, the databases' zone."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("it is outside the calendar") from error


def _is_row(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= _LONGEST_ROW


TYPE = text("type", "The saga's type; needed when sagas of several types have its id.")
STATE = choice("state", "Sagas whose last state at this service is this one.", SagaState)
ATTENTION = choice("attention", "Sagas that need an operator, for this reason.", Attention)
