"""Open questions and given answers as their readers get them, from the table to the screen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from toolkit.protocol.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Row):
    """A step that waits for an answer.

    - `asked_at`: since when it waits for nothing but answers; `asked_by`: the last event that it needed.
    - `events`: the events that have arrived, by name, with `***` for what is sensitive.
    - `answers`: the events of which one answers it; `waits_for`: all empty slots in words.
    - `deadline`: when it refuses without an answer.
    """

    service: str
    saga_type: str
    saga_id: str
    step: str
    asked_at: datetime
    asked_by: str
    events: dict[str, dict[str, Any] | None]
    answers: list[str]
    waits_for: str
    deadline: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOutcome(Row):
    """What became of an answer.

    - `outcome`: `answered` once the step has taken it, `sent` until then, `refused` where it came too late.
    - `why`: the reason of a refusal, or why the outcome is not known yet.
    - `decided_with`, `decided_by`, `decided_at`: the answer that the step took, if any.
    """

    service: str
    saga_type: str
    saga_id: str
    step: str
    event_type: str
    event_id: str | None
    outcome: str
    why: str | None
    decided_with: str | None
    decided_by: str | None
    decided_at: datetime | None

    @property
    def is_answered(self) -> bool:
        """Whether the step has taken the answer."""
        return self.outcome == ANSWERED

    @property
    def is_refused(self) -> bool:
        """Whether the step waits no more."""
        return self.outcome == REFUSED


#: The outcomes of an answer.
ANSWERED, SENT, REFUSED = "answered", "sent", "refused"
