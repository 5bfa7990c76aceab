"""The base of the rows that people and clients read: a frozen class of each kind, from the table to the screen.

A row's fields are the keys of its JSON: the API's schemas are these classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, Self, TypeVar, cast

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row as its readers get it; `conversions` has the functions that convert a raw value, by field."""

    conversions: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Return the row that a table, or an answer, holds; it may have more fields.

        Raises:
            KeyError: a field is missing.
        """
        values = {name: row[name] for name in field_names(cls)}
        return cls(**values | {name: convert(values[name]) for name, convert in cls.conversions.items()})

    def as_row(self) -> dict[str, Any]:
        """Return the fields by name, in their order."""
        return {name: getattr(self, name) for name in field_names(type(self))}


def field_names(kind: type[Row]) -> tuple[str, ...]:
    """Return the names of a row's fields, in their order."""
    hashable: Any = kind  # mypy takes the rows' own hash for that of their class
    return _field_names(hashable)


@cache
def _field_names(kind: type[Row]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


def member_or_text(kind: type[E]) -> Callable[[str], E]:
    """Return a function from a text to the member of an enum; another text is kept, so that a broken row is shown."""

    def convert(value: str) -> E:
        try:
            return kind(value)
        except ValueError:
            return cast("E", value)

    return convert
