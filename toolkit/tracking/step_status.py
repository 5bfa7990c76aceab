"""The status of one step or compensation in one saga, and what a service knows of the saga beside its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from toolkit.protocol.dead_letter_rows import DeadLetterSummary
from toolkit.protocol.pending_rows import OverdueStep, UnsentMessage


class View(Protocol):
    """What one service knows of a saga beside its log entries."""

    @property
    def outbox(self) -> Sequence[UnsentMessage]:
        """The saga's outbox rows, the service's own retries among them."""
        ...

    @property
    def dead_letters(self) -> Sequence[DeadLetterSummary]:
        """The saga's dead letters."""
        ...

    @property
    def overdue(self) -> Sequence[OverdueStep]:
        """The steps that have waited too long for the saga's end."""
        ...


class Status(StrEnum):
    """The status of one step or compensation of a saga."""

    DONE = "done"
    RUNNING = "running"
    WAITING = "waiting"
    """A join that has some of its events, and waits for the others."""
    REMAINING = "remaining"
    """Still to come, unless a step refuses."""
    OVERDUE = "overdue"
    """Running or still to come, in a saga that should have ended long ago."""
    DEAD_LETTER = "dead_letter"
    """Dead-lettered; it waits for an operator."""
    UNDONE = "undone"
    REFUSED = "refused"
    FENCED = "fenced"
    SKIPPED = "skipped"
    """Not on the saga's path, as far as it has come."""
    UNKNOWN = "unknown"
    """No reachable service knows it."""

    @property
    def is_to_come(self) -> bool:
        """Whether it is not over."""
        return self in (Status.RUNNING, Status.WAITING, Status.REMAINING, Status.OVERDUE, Status.DEAD_LETTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """An event that a step took or emitted; its body is as its service shows it, or None."""

    type: str
    id: str | None = None
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProgress:
    """One step or compensation, in one saga.

    - `of`: the step that a compensation undoes.
    - `at`: since when it has its status; `next_at`: when it is tried again.
    - `attempt`, `attempts`: the number of the last attempt, or of the next one, and how many there are in all.
    - `waits_for`: the events that a join still lacks, with the slot of each: "CarBooked (car)".
    - `nudges`: how often the event that it waits for was sent again; `dead_letter_id`: its dead letter.
    """

    service: str
    name: str
    kind: str
    of: str | None = None
    status: Status
    at: datetime | None = None
    attempt: int | None = None
    attempts: int | None = None
    next_at: datetime | None = None
    event_in: SeenEvent | None = None
    event_out: SeenEvent | None = None
    error: str | None = None
    waits_for: str | None = None
    trace_id: str | None = None
    nudges: int = 0
    dead_letter_id: str | None = None
