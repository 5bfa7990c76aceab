"""Dead letters as their readers get them, from the table to the screen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from toolkit.protocol.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSummary(Row):
    """A dead letter, without its message."""

    id: str
    service: str
    reason: str
    error: str
    saga_type: str | None
    saga_id: str | None
    step: str | None
    event_type: str | None
    message_id: str | None
    routing_key: str
    attempts: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeDeadLetter(DeadLetterSummary):
    """A dead letter with its message; the body and unknown headers have `***` for what is sensitive."""

    sent_at: datetime | None
    traceback: str | None
    headers: dict[str, Any]
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterGroup(Row):
    """The dead letters of one reason and step; `error` and `saga_id` are those of the newest one."""

    reason: str
    step: str | None
    count: int
    first_at: datetime
    last_at: datetime
    error: str
    saga_type: str | None
    saga_id: str | None
