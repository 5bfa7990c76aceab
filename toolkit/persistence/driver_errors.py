"""Row values are removed from a database's errors where these are raised, before anything shows them.

PostgreSQL repeats values in its DETAIL, cut where they are long, and in the text of some errors; a driver repeats a
value that it could not encode. The SQLSTATE and the names of table, constraint and column stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, StatementError

from toolkit.urls import HIDDEN

#: An error's attributes that are kept, by the driver's names.
_FACTS = {"sqlstate": "SQLSTATE", "table_name": "table", "constraint_name": "constraint", "column_name": "column"}
#: An error's attributes that repeat values: of a row, or of a JSON parameter.
_REPEATING = ("detail", "context")
#: Where values occur: after PostgreSQL's colon in quotes, after a driver's parameter number, and in the lines that
#: follow the text.
_VALUES = (
    (re.compile(r"\n(?:DETAIL|CONTEXT|PARAMETERS):.*", re.DOTALL), ""),
    (re.compile(r'(: )"[^\n]*"'), rf'\1"{HIDDEN}"'),
    (re.compile(r"(invalid input for query argument \$\d+[^:]*: ).*", re.DOTALL), rf"\1{HIDDEN}"),
)
#: A text literal: a value that is part of the statement instead of a parameter.
_LITERAL = re.compile(r"(?:\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*')", re.DOTALL)
#: A chain of causes is followed so far.
_LONGEST_CHAIN = 20
_DRIVERS = ("asyncpg.", "psycopg", "sqlalchemy.", "aiosqlite", "sqlite3")


def take_values_out(context: ExceptionContext) -> None:
    """Remove the values from an error: a listener for SQLAlchemy's `handle_error`."""
    for error in (context.sqlalchemy_exception, context.original_exception):
        if error is not None:
            without_values(error)


def without_values(error: BaseException) -> None:
    """Remove row values from an error and its causes, as far as a database raised them."""
    for each in causes_of(error):
        if type(each).__module__.startswith(_DRIVERS):
            _clean(each)


def _clean(error: BaseException) -> None:
    facts = _facts(error)
    for name in _REPEATING:
        if getattr(error, name, None):
            setattr(error, name, None)
    if isinstance(error, StatementError) and error.statement:
        error.statement = _LITERAL.sub(f"'{HIDDEN}'", error.statement)
    error.args = tuple(_cleaned(each, facts) if isinstance(each, str) else each for each in error.args)


def _cleaned(text: str, facts: str) -> str:
    for pattern, instead in _VALUES:
        text = pattern.sub(instead, text)
    return text if not facts or facts in text else f"{text} ({facts})"


def _facts(error: BaseException) -> str:
    """Return an error's attributes; for SQLAlchemy's errors, those of the driver's error."""
    source: Any = error.orig if isinstance(error, DBAPIError) else error
    if (cause := getattr(source, "__cause__", None)) is not None and getattr(cause, "sqlstate", None):
        source = cause
    known = ((word, getattr(source, name, None)) for name, word in _FACTS.items())
    return ", ".join(f"{word} {value}" for word, value in known if isinstance(value, str) and value)


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it wraps, follows or groups; a cycle ends."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _LONGEST_CHAIN:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        behind = (getattr(each, "orig", None), each.__cause__, each.__context__, *getattr(each, "exceptions", ()))
        waiting += [cause for cause in behind if isinstance(cause, BaseException)]
