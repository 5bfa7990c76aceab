"""One parameter for a list of ids of any length: an IN list makes another statement for each length.

Batches have all lengths, and each statement would have to be built, parsed, planned and cached.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self

from sqlalchemy import ARRAY, Boolean, ColumnElement, String, bindparam
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine


class Ids(TypeDecorator[Sequence[str]]):
    """A list of ids: an array on PostgreSQL, JSON on SQLite."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the database's own type."""
        return dialect.type_descriptor(String() if dialect.name == "sqlite" else ARRAY(String))

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> str | list[str]:
        """Return the list in the database's form."""
        ids = list(value or ())
        return json.dumps(ids) if dialect.name == "sqlite" else ids


class OneOf(FunctionElement[bool]):
    """The condition that a column's value is one of the parameter's ids."""

    inherit_cache = True
    type = Boolean()

    def __init__(self, column: ColumnElement[str], parameter: str) -> None:
        super().__init__(column, bindparam(parameter, type_=Ids()))

    def self_group(self, against: Any = None) -> Self:
        """Return it unchanged: for SQLite, which has no boolean, SQLAlchemy would add `= 1` and prevent the index."""
        return self


@compiles(OneOf)
def _any(element: OneOf, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} = ANY ({ids}))"


@compiles(OneOf, "sqlite")
def _in_json(element: OneOf, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} IN (SELECT value FROM json_each({ids})))"  # noqa: S608 -- a column and a parameter
