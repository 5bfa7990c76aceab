"""What a reader's schema does not take of a writer's bodies: the kinds of differences, and the difference itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of differences; the value names the rule of its finding."""

    REQUIRED = "required field"
    RENAMED = "field renamed"
    LEFT_OUT = "field left out"
    """The reader requires a field that the writer may leave out."""
    UNKNOWN = "unknown field"
    NULL = "null not taken"
    TYPE = "type changed"
    NARROWED = "narrowed"
    """The reader takes fewer values than may be written."""

    @property
    def is_certain(self) -> bool:
        """Whether no body can be read; else it depends on the body's values."""
        return self in (Kind.REQUIRED, Kind.RENAMED)


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: the field's path, dots into objects and `*` for items, and what does not fit, in words."""

    kind: Kind
    path: str
    text: str
