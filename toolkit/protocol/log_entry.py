"""An entry of the saga log as its readers get it, from the table to the screen.

The API's schema is this class; its fields are columns of the table, which a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from toolkit.protocol.fence import SagaState
from toolkit.protocol.rows import Row, member_or_text


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry(Row):
    """An entry of the saga log; one without a position is a note, which moved nothing."""

    conversions: ClassVar = {"saga_state": member_or_text(SagaState)}

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailedEntry(LogEntry):
    """An entry as one saga's timeline has it; the emitted event's body has `***` for what is sensitive.

    `event_by`: who gave the answer that the step took.
    """

    event_by: str | None
    emitted_body: dict[str, Any] | None
    trace_id: str | None
    deadline: datetime | None


def trace_of(entry: LogEntry) -> str | None:
    """Return the id of the trace that the entry was written in, where its details are known."""
    return entry.trace_id if isinstance(entry, DetailedEntry) else None


def answered_by(entry: LogEntry) -> str | None:
    """Return who gave the answer that the step took, where the entry's details are known."""
    return entry.event_by if isinstance(entry, DetailedEntry) else None
