"""Statements that certainly write nothing: plain reads of tables, built from SQLAlchemy's constructs.

The text of a statement proves nothing: any function, operator, view, rule or policy may write. So a list names what is
allowed, in the construct and in the database's catalogue, and a statement with anything else counts as a write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnClause, CompoundSelect, Select, Table, TableClause, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import Compiled
from sqlalchemy.sql.operators import custom_op

#: The parts of a plain read, as SQLAlchemy's visitors name them; no function, no text, no cast, no CTE.
_PARTS = {
    "alias", "bindparam", "binary", "clause", "clauselist", "column", "compound_select", "expression_clauselist",
    "false", "grouping", "join", "label", "label_reference", "null", "select", "subquery", "table", "true", "unary",
}  # fmt: skip
#: The operators that no library of the database implements.
_OPERATORS = {
    "and_", "asc_op", "comma_op", "desc_op", "eq", "exists", "ge", "gt", "in_op", "inv", "is_", "is_not", "le", "lt",
    "ne", "not_in_op", "or_",
}  # fmt: skip
#: The words allowed before a parenthesis: a type may wrap its column in a function, which only the text shows.
_BEFORE_PARENTHESIS = {"", "AND", "EXISTS", "FROM", "IN", "JOIN", "NOT", "ON", "OR", "SELECT", "UNION", "ALL", "WHERE"}
_WORD_BEFORE = re.compile(r'([\w"$\]/]*)\s*\(')
#: Whether reading a table of PostgreSQL runs no code of its owner: no view, no policy, no partition elsewhere, and only
#: PostgreSQL's own types, operators and casts.
_IS_PLAIN = text("""
SELECT c.relkind = 'r' AND NOT c.relhassubclass AND NOT c.relrowsecurity
AND NOT EXISTS (
    SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND t.typnamespace <> 'pg_catalog'::regnamespace AND t.typtype <> 'e')
AND NOT EXISTS (SELECT FROM pg_operator WHERE oprnamespace <> 'pg_catalog'::regnamespace)
AND NOT EXISTS (
    SELECT FROM pg_cast k JOIN pg_proc p ON p.oid = k.castfunc WHERE p.pronamespace <> 'pg_catalog'::regnamespace)
FROM pg_class c WHERE c.oid = to_regclass(:name)
""")


class PlainReads:
    """The tables of one database that are plain; each is looked up once."""

    def __init__(self) -> None:
        self._is_plain: dict[str, bool] = {}

    async def are_all(self, executed: Iterable[Compiled | None], connection: AsyncConnection) -> bool:
        """Whether the executed statements certainly wrote nothing; None is one that SQLAlchemy did not compile."""
        tables: set[Table] = set()
        for each in executed:
            if each is None or (found := tables_read(each)) is None:
                return False
            tables |= found
        return connection.dialect.name == "sqlite" or all(
            [await self._is_plain_table(each, connection) for each in tables]
        )

    async def _is_plain_table(self, table: Table, connection: AsyncConnection) -> bool:
        name = connection.dialect.identifier_preparer.format_table(table)
        if name not in self._is_plain:
            self._is_plain[name] = bool(await connection.scalar(_IS_PLAIN, {"name": name}))
        return self._is_plain[name]


@lru_cache(maxsize=500)  # SQLAlchemy caches as many compiled statements
def tables_read(compiled: Compiled) -> frozenset[Table] | None:
    """Return the tables that a plain read reads; None if the statement may be anything else."""
    # The ORM adds its own joins: its statement is the one that is executed.
    statement: Any = getattr(compiled.compile_state, "statement", None)
    statement = compiled.statement if statement is None else statement
    if not isinstance(statement, Select | CompoundSelect) or _calls(compiled.string):
        return None
    parts = list(visitors.iterate(statement))
    if not all(map(_is_allowed, parts)):
        return None
    return frozenset(each for each in parts if isinstance(each, Table))


def _calls(sql: str) -> bool:
    """Whether a word before a parenthesis may be a function's name."""
    return not {word.upper() for word in _WORD_BEFORE.findall(sql)} <= _BEFORE_PARENTHESIS


def _is_allowed(part: Any) -> bool:
    if part.__visit_name__ not in _PARTS or (isinstance(part, TableClause) and not isinstance(part, Table)):
        return False
    if isinstance(part, ColumnClause) and part.is_literal and part.name != "*":
        return False
    if any(getattr(part, name, ()) for name in ("_prefixes", "_suffixes", "_hints", "_statement_hints")):
        return False  # they are text
    used = [getattr(part, name, None) for name in ("operator", "modifier")]
    return all(each.__name__ in _OPERATORS and not isinstance(each, custom_op) for each in used if each is not None)
