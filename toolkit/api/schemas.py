"""The API's answers, as models; the OpenAPI document is made of them, and the tests check every answer against them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from toolkit.operations.outcomes import DeadLetterOutcome, SagaOutcome
from toolkit.operations.search import FoundSaga
from toolkit.persistence.audit_log import AuditEntry
from toolkit.persistence.contradictions import Contradiction
from toolkit.persistence.known_steps import UndeclaredStep
from toolkit.protocol.dead_letter_rows import DeadLetterGroup, DeadLetterSummary, WholeDeadLetter
from toolkit.protocol.log_entry import DetailedEntry, LogEntry
from toolkit.protocol.pending_rows import OverdueStep, UnsentMessage
from toolkit.protocol.question_rows import AnswerOutcome, Question


class Failure(BaseModel):
    """The reason why there is no answer; a text for people."""

    error: str
    service: str | None = None
    saga_id: str | None = None
    types: list[str] | None = None
    answer: AnswerOutcome | None = None
    answers: list[str] | None = None


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


class Outbox(BaseModel):
    """A page of the outbox; of all rows, how many there are, and when the oldest event occurred."""

    service: str
    outbox: list[UnsentMessage]
    total: int
    oldest_at: datetime | None
    next: str | None


class DeadLetterList(BaseModel):
    """Dead letters, the newest first, and how many are selected in all."""

    service: str
    dead_letters: list[DeadLetterSummary]
    total: int


class OneDeadLetter(BaseModel):
    """One dead letter."""

    service: str
    dead_letter: WholeDeadLetter


class DeadLetterGroups(BaseModel):
    """All dead letters in groups, the largest first."""

    service: str
    groups: list[DeadLetterGroup]


class OverdueSteps(BaseModel):
    """Overdue steps, the longest waiting first."""

    service: str
    overdue: list[OverdueStep]


class Contradictions(BaseModel):
    """Contradictions, the newest first."""

    service: str
    contradictions: list[Contradiction]


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
    outbox: list[UnsentMessage]
    dead_letters: list[DeadLetterSummary]
    overdue: list[OverdueStep]


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


class DeadLetterBatch(BaseModel):
    """The outcomes of one batch; the next begins behind `after`, null where nothing is left."""

    service: str
    rows: list[DeadLetterOutcome]
    after: str | None


class SagaBatch(BaseModel):
    """What was sent."""

    service: str
    rows: list[SagaOutcome]


class OpenQuestions(BaseModel):
    """The steps that wait for an answer, the longest waiting first."""

    service: str
    questions: list[Question]


class GivenAnswer(BaseModel):
    """What became of an answer."""

    service: str
    answer: AnswerOutcome


class Pruned(BaseModel):
    """The counts that one batch pruned; `is_all` where nothing old is left."""

    service: str
    sagas: int
    dead_letters: int
    audit: int
    is_all: bool
