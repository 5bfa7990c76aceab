"""The API's answers, as models; the OpenAPI document is made of them, and the tests check every answer against them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from toolkit.declaration.events import SagaState
from toolkit.operations.attention import Attention
from toolkit.protocol.log_entry import DetailedEntry, LogEntry


class Failure(BaseModel):
    """The reason why there is no answer; a text for people."""

    error: str
    service: str | None = None
    saga_id: str | None = None
    types: list[str] | None = None


class Alive(BaseModel):
    """The process lives."""

    service: str
    alive: bool


class Ready(BaseModel):
    """Whether broker, database and relay work; a service may add others by name."""

    model_config = {"extra": "allow"}

    broker: bool
    database: bool
    relay: bool


class FoundSaga(BaseModel):
    """A saga by its entries in this service; `step` is the one that moved last, at `moved_at`."""

    saga_id: str
    saga_type: str
    state: SagaState
    step: str
    started_at: datetime
    moved_at: datetime
    at: datetime
    attention: list[Attention]


class FoundSagas(BaseModel):
    """A page of sagas; `next` is the cursor of the page behind it, null where that was the last."""

    service: str
    sagas: list[FoundSaga]
    next: str | None


class LogPage(BaseModel):
    """Entries, the oldest first; `last` is the row of the last, and `next` it, too, until all of them are read."""

    service: str
    entries: list[LogEntry]
    next: int | None = None
    last: int | None = None


class WaitingRow(BaseModel):
    """A row of the outbox; `tries` without a confirm, `destination` only where the service sends it to itself."""

    id: str
    event_id: str
    event_type: str
    saga_type: str | None
    saga_id: str | None
    occurred_at: datetime | None
    due_at: datetime
    tries: int
    destination: str | None
    attempt: int


class Outbox(BaseModel):
    """A page of the outbox; of all rows, how many there are, and when the oldest event occurred."""

    service: str
    outbox: list[WaitingRow]
    total: int
    oldest_at: datetime | None
    next: str | None


class DeadLetterSummary(BaseModel):
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


class WholeDeadLetter(DeadLetterSummary):
    """A dead letter with its message; the body and unknown headers have `***` for what is sensitive."""

    sent_at: datetime | None
    traceback: str | None
    headers: dict[str, Any]
    body: str


class DeadLetterList(BaseModel):
    """Dead letters, the newest first, and how many are selected in all."""

    service: str
    dead_letters: list[DeadLetterSummary]
    total: int


class OneDeadLetter(BaseModel):
    """One dead letter."""

    service: str
    dead_letter: WholeDeadLetter


class DeadLetterGroup(BaseModel):
    """The dead letters of one reason and step; `error` and `saga_id` are those of the newest one."""

    reason: str
    step: str | None
    count: int
    first_at: datetime
    last_at: datetime
    error: str
    saga_type: str | None
    saga_id: str | None


class DeadLetterGroups(BaseModel):
    """All dead letters in groups, the largest first."""

    service: str
    groups: list[DeadLetterGroup]


class LateStep(BaseModel):
    """An overdue step; `nudges` counts how often its event was sent again, `aborted` whether an abort was sent."""

    saga_id: str
    step: str
    saga_type: str
    position: int
    state: str
    saga_state: SagaState
    since: datetime
    nudges: int
    aborted: bool


class LateSteps(BaseModel):
    """Overdue steps, the longest waiting first."""

    service: str
    overdue: list[LateStep]


class Contradiction(BaseModel):
    """A step whose state contradicts its saga's end, how, and since when that is known."""

    saga_id: str
    saga_type: str
    step: str
    error: str
    since: datetime


class Contradictions(BaseModel):
    """Contradictions, the newest first."""

    service: str
    contradictions: list[Contradiction]


class UndeclaredStep(BaseModel):
    """A step that the log holds and the service does not declare; `unfinished` sagas of it are counted up to 1,000."""

    saga_type: str
    step: str
    unfinished: int


class UndeclaredSteps(BaseModel):
    """The steps that the log holds and the service does not declare."""

    service: str
    undeclared_steps: list[UndeclaredStep]


class WholeSaga(BaseModel):
    """All that one service knows of a saga; no type where only messages without a type are left of it."""

    service: str
    saga_type: str | None
    saga_id: str
    entries: list[DetailedEntry]
    outbox: list[WaitingRow]
    dead_letters: list[DeadLetterSummary]
    overdue: list[LateStep]


class AuditEntry(BaseModel):
    """An operator's change: who, when, why, and what."""

    id: str
    at: datetime
    actor: str
    verb: str
    reason: str
    saga_type: str | None
    saga_id: str | None
    subject: str


class Audit(BaseModel):
    """A page of the audit, the newest first; `next` is the cursor of the one behind it, null where there is none."""

    service: str
    audit: list[AuditEntry]
    next: str | None


class Remaining(BaseModel):
    """The backlog: the counts of outbox rows and dead letters, and until when sagas may have been pruned."""

    service: str
    outbox: int
    dead_letters: int
    pruned_until: datetime | None


class DeadLetterOutcome(BaseModel):
    """What became of one dead letter; `why` where it was refused."""

    id: str
    saga_type: str | None
    saga_id: str | None
    step: str | None
    reason: str
    outcome: str
    why: str | None


class DeadLetterBatch(BaseModel):
    """The outcomes of one batch; the next begins behind `after`, null where nothing is left."""

    service: str
    rows: list[DeadLetterOutcome]
    after: str | None


class SagaOutcome(BaseModel):
    """What was sent for one step of a saga; `why` where it was refused."""

    service: str
    saga_type: str
    saga_id: str
    step: str
    event_type: str | None
    event_id: str | None
    outcome: str
    why: str | None


class SagaBatch(BaseModel):
    """What was sent."""

    service: str
    rows: list[SagaOutcome]


class Pruned(BaseModel):
    """The counts that one batch pruned; `is_all` where nothing old is left."""

    service: str
    sagas: int
    dead_letters: int
    audit: int
    is_all: bool
