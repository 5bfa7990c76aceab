"""What a database's error repeats of its rows is taken out of it, where it is raised and before anything shows it.

PostgreSQL repeats values in its DETAIL, cut where they are long, and in the text of some errors; a driver repeats what
it could not encode. What such an error is about stays: its SQLSTATE, and the names of table, constraint and column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, StatementError

from toolkit.urls import HIDDEN

#: What is told of an error beside its text, by the driver's names for it.
_FACTS = {"sqlstate": "SQLSTATE", "table_name": "table", "constraint_name": "constraint", "column_name": "column"}
#: What PostgreSQL puts behind a colon and into quotes, or a driver behind the parameter's number, is a value; and what
#: follows the text in lines of its own is about one.
_VALUES = (
    (re.compile(r"\n(?:DETAIL|CONTEXT|PARAMETERS):.*", re.DOTALL), ""),
    (re.compile(r'(: )"[^\n]*"'), rf'\1"{HIDDEN}"'),
    (re.compile(r"(invalid input for query argument \$\d+[^:]*: ).*", re.DOTALL), rf"\1{HIDDEN}"),
)
#: A text within a statement: a value that somebody wrote into it rather than beside it.
_LITERAL = re.compile(r"(?:\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*')", re.DOTALL)
#: So long a chain of causes is followed.
_LONGEST_CHAIN = 20
_DRIVERS = ("asyncpg.", "psycopg", "sqlalchemy.", "aiosqlite", "sqlite3")


def take_values_out(context: ExceptionContext) -> None:
    """Take the values out of an error when SQLAlchemy handles it: as `handle_error` wants it."""
    for error in (context.sqlalchemy_exception, context.original_exception):
        if error is not None:
            without_values(error)


def without_values(error: BaseException) -> None:
    """Change an error and its causes so that none tells a row's values, as far as they are a database's."""
    for each in causes_of(error):
        if type(each).__module__.startswith(_DRIVERS):
            _clean(each)


def _clean(error: BaseException) -> None:
    facts = _facts(error)
    if getattr(error, "detail", None):
        error.detail = None  # type: ignore[attr-defined]
    if isinstance(error, StatementError) and error.statement:
        error.statement = _LITERAL.sub(f"'{HIDDEN}'", error.statement)
    error.args = tuple(_cleaned(each, facts) if isinstance(each, str) else each for each in error.args)


def _cleaned(text: str, facts: str) -> str:
    for pattern, instead in _VALUES:
        text = pattern.sub(instead, text)
    return text if not facts or facts in text else f"{text} ({facts})"


def _facts(error: BaseException) -> str:
    """Return what is told of an error beside its text; of SQLAlchemy's, what its driver's tells."""
    source: Any = error.orig if isinstance(error, DBAPIError) else error
    if (cause := getattr(source, "__cause__", None)) is not None and getattr(cause, "sqlstate", None):
        source = cause
    told = ((word, getattr(source, name, None)) for name, word in _FACTS.items())
    return ", ".join(f"{word} {value}" for word, value in told if isinstance(value, str) and value)


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it wraps, follows or groups; a chain that leads back to itself ends."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _LONGEST_CHAIN:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        behind = (getattr(each, "orig", None), each.__cause__, each.__context__, *getattr(each, "exceptions", ()))
        waiting += [cause for cause in behind if isinstance(cause, BaseException)]
