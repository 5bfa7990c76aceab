"""The report of a transaction after its commit, and only then: log lines, counts and spans."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from toolkit.declaration.events import Event, Refusal, SagaState
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.text_redaction import redact
from toolkit.errors import text_of
from toolkit.ids import trace_facts
from toolkit.messaging.envelope import Envelope, Message
from toolkit.observability.logs import drops_info
from toolkit.observability.metrics import Hit, Meter
from toolkit.observability.tracing import Span, Tracing, now
from toolkit.persistence.dead_letters import DeadLetter, log_dead_letter
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import Note
from toolkit.protocol.keys import SagaKey
from toolkit.runtime.invocation import Failure
from toolkit.runtime.joins import Joined

log = structlog.get_logger("toolkit")

#: The notes that are logged at a higher level than info.
_ALWAYS_LOGGED = (Note.DEAD_LETTERED, Note.RETRYING)
#: The most characters of an error in a span.
_MOST_TEXT = 500


@dataclass(slots=True, eq=False)
class Attempt:
    """One run of a step's or a compensation's function; it is reported once its result is committed.

    - `seconds`: the run's duration; None where it was not run because its commit had failed.
    - `body`: the returned event as JSON, as it goes out.
    - `joined`: the events that fill a join's slots.
    - `original`: the body of the event that the step emitted, if it has emitted one.
    - `outcome`: the state in the saga log; `failed` where no entry follows, since the step gives up next.
    """

    handler: Step | Compensation
    message: Message
    span: Span | None = None
    result: Event | Failure | None = None
    body: bytes | None = None
    seconds: float | None = None
    ended: int = 0
    joined: Joined | None = None
    original: str | None = None
    number: int = 1
    outcome: str = "failed"
    _began: float = field(default_factory=time.perf_counter)

    @property
    def step(self) -> Step:
        """The step that was run, or undone."""
        return self.handler if isinstance(self.handler, Step) else self.handler.of

    def end(self, result: Event | Failure) -> None:
        """Record the result and the time."""
        self.seconds, self.ended = time.perf_counter() - self._began, now()
        self.result = result


class AfterCommit:
    """Collects what a transaction does until its commit."""

    def __init__(self, tracing: Tracing | None) -> None:
        self._tracing = tracing
        self._attempts: list[Attempt] = []
        self._begun: list[Envelope] = []
        self._hits: list[tuple[Step, Hit]] = []
        self._durations: list[tuple[str, SagaState, float]] = []
        self._contradictions: list[Entry] = []

    def attempted(self, attempt: Attempt) -> None:
        """A function was run."""
        self._attempts.append(attempt)

    def began(self, cause: Envelope) -> None:
        """A saga began with this event."""
        self._begun.append(cause)

    def hit(self, step: Step, kind: Hit) -> None:
        """A message met a fence."""
        self._hits.append((step, kind))

    def contradicted(self, note: Entry) -> None:
        """A refusal, or an event that follows from one, came after the saga was completed; the note names it."""
        self._contradictions.append(note)

    def ended(self, cause: Envelope, outcome: SagaState, *, at: datetime) -> None:
        """A saga ended; its duration is known if its events carry its start. Clocks may differ a little."""
        if cause.started_at:
            self._durations.append((cause.saga_type, outcome, max((at - cause.started_at).total_seconds(), 0)))

    def report(self, meter: Meter, entries: Sequence[Entry], dead_letters: Sequence[DeadLetter]) -> None:
        """Log, count and trace it all, with the committed entries and dead letters."""
        for attempt in self._attempts:
            if attempt.seconds is not None:
                meter.attempt(attempt.handler, attempt.seconds)
            if attempt.span:
                _trace(attempt, attempt.span)
        for cause in self._begun:
            meter.started(cause.saga_type)
            if self._tracing:
                self._tracing.export_root(cause)
        for step, kind in self._hits:
            meter.hit(step, kind)
        for saga_type, outcome, seconds in self._durations:
            meter.ended(saga_type, outcome, seconds)
        meter.entries(entries)
        is_info_dropped = drops_info()
        for entry in entries:
            if not is_info_dropped or entry.to_state in _ALWAYS_LOGGED:
                _log(entry)
        for note in self._contradictions:
            log_contradiction((note.saga_type, note.saga_id), note.step, note.error)
        for dead_letter in dead_letters:
            meter.dead_letter(dead_letter)
            log_dead_letter(dead_letter)


def log_contradiction(saga: SagaKey, step: str, error: str | None) -> None:
    """Log that a step contradicts its saga's end, which no rule of the protocol mends."""
    saga_type, saga_id = saga
    log.error("saga contradicts its end", saga_type=saga_type, saga_id=saga_id, step=step, error=error)


def redacted(text: str, step: Step, message: Message, original: str | None) -> str:
    """Return a text without the sensitive values of the event that came, and of the one that the step emitted."""
    text = redact(type(message.event), message.body, text)
    return redact(step.success, original, text) if original else text


def _log(entry: Entry) -> None:
    facts = {
        "service": entry.service,
        "saga_type": entry.saga_type,
        "saga_id": entry.saga_id,
        "step": entry.step,
        "from_state": entry.from_state,
        "to_state": str(entry.to_state),
        "event_id": entry.event_id,
    }
    facts |= trace_facts(entry.traceparent)
    if entry.to_state == Note.DEAD_LETTERED:
        log.error("saga needs an operator", error=entry.error, **facts)
    elif entry.to_state == Note.RETRYING:
        log.warning("step will be retried", error=entry.error, attempt=entry.attempt, **facts)
    else:
        log.info("saga moved" if entry.position else "saga noted", emitted=entry.emitted_type, **facts)


def _trace(attempt: Attempt, span: Span) -> None:
    def shown(text: str) -> str:
        text = redacted(text[:_MOST_TEXT], attempt.step, attempt.message, attempt.original)
        return attempt.joined.redacted(text) if attempt.joined else text

    error = attempt.result.error if isinstance(attempt.result, Failure) else None
    reason = attempt.result.reason if isinstance(attempt.result, Refusal) else None
    facts: dict[str, str | int | None] = {
        "saga.step": attempt.step.name,
        "saga.attempt": attempt.number,
        "saga.outcome": attempt.outcome,
        "saga.reason": shown(reason) if reason else None,
    }
    fault = (_class_name(type(error)), shown(text_of(error))) if error else None
    span.end(at=attempt.ended or now(), facts=facts, error=fault)


def _class_name(kind: type[BaseException]) -> str:
    """Return an error's class as spans name it: with its module, unless it is a built-in one."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
