"""An entry of the saga log as its readers get it, from the table to the screen.

The API's schema is this class; its fields are columns of the table, which a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, cast

from toolkit.protocol.fence import SagaState


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """An entry of the saga log; one without a position is a note, which moved nothing."""

    service: str
    saga_id: str
    saga_type: str
    step: str
    position: int | None
    from_state: str | None
    to_state: str
    saga_state: SagaState
    event_id: str | None
    event_type: str | None
    emitted_id: str | None
    emitted_type: str | None
    attempt: int
    error: str | None
    at: datetime

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Return the entry that a row of the table, or of an answer, holds; a row may hold more.

        Raises:
            KeyError: a field is missing.
        """
        return cls(**{name: row[name] for name in field_names(cls)} | {"saga_state": _saga_state(row["saga_state"])})

    def as_row(self) -> dict[str, Any]:
        """Return the fields by name, in their order."""
        return {name: getattr(self, name) for name in field_names(type(self))}


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailedEntry(LogEntry):
    """An entry as one saga's timeline has it; the emitted event's body has `***` for what is sensitive."""

    emitted_body: dict[str, Any] | None
    trace_id: str | None
    deadline: datetime | None


def field_names(kind: type[LogEntry]) -> tuple[str, ...]:
    """Return the names of an entry's fields, in their order."""
    return tuple(kind.__dataclass_fields__)


def trace_of(entry: LogEntry) -> str | None:
    """Return the id of the trace that the entry was written in, where its details are known."""
    return entry.trace_id if isinstance(entry, DetailedEntry) else None


def _saga_state(value: str) -> SagaState:
    """Return the saga's state; a text that is none is kept, so that a broken row can be shown."""
    try:
        return SagaState(value)
    except ValueError:
        return cast("SagaState", value)
