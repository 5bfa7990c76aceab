"""The entries that a unit of work appends to the stream of one step of one saga."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from toolkit.declaration.events import Event, Refusal, SagaState, SagaWaits
from toolkit.declaration.participant import Step
from toolkit.messaging.envelope import Envelope, Message, about_one_saga
from toolkit.persistence import log_entries
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.commands import Reply, outcome_of
from toolkit.protocol.fence import Note, StepState, is_legal
from toolkit.runtime.after_commit import Attempt, redacted
from toolkit.runtime.joins import is_question_open
from toolkit.runtime.unit_of_work import UnitOfWork


class StepEntries:
    """A step of the message's saga, its stream, and the entries that the message adds to it."""

    __slots__ = ("_attempt", "_work", "key", "message", "step", "stream")
    #: Whether it is a coordinator's stream of a step that it asks.
    _is_asked = False

    def __init__(self, work: UnitOfWork, step: Step, message: Message) -> None:
        self._work = work
        self.step = step
        self.message = message
        self.key = step.saga.name, message.envelope.saga_id, step.name
        self.stream = work.stream(self.key)
        self._attempt: Attempt | None = None

    def attempted(self, attempt: Attempt) -> None:
        """Record a run of the step's function; the next entry holds its outcome."""
        attempt.number, attempt.original = self.stream.retries + 1, self.stream.completed_body
        self._work.after_commit.attempted(attempt)
        self._attempt = attempt

    def _move(
        self,
        to: StepState,
        saga_state: SagaState,
        *,
        emitted: Event | None = None,
        body: bytes | None = None,
        error: str | None = None,
        made_by: Callable[..., Entry] = log_entries.move,
    ) -> None:
        """Append the step's move, and send the event that follows; the error has no sensitive values any more."""
        stream, cause, work = self.stream, self.message.envelope, self._work
        assert is_legal(stream.state, to, is_asked=self._is_asked), f"{stream.state} → {to}"  # noqa: S101 -- decided before
        if stream.state is StepState.GATHERING:
            self._leave_gate(to)
        body = self._attempt.body if self._attempt and emitted and self._attempt.result is emitted else body
        traceparent = self._traceparent(to, is_emitted=emitted is not None)
        if stream.state is None and cause.event_type == self.step.saga.starts_with.__name__ and self._may_begin():
            work.after_commit.began(cause)
        entry = made_by(
            self.key,
            service=work.origin.service,
            to=to,
            saga_state=saga_state,
            at=work.origin.now,
            position=stream.position + 1,
            from_state=stream.state,
            event_id=cause.event_id,
            event_type=cause.event_type,
            attempt=stream.retries + 1,
            error=error,
            deadline=cause.deadline,
            traceparent=traceparent,
            started_at=cause.started_at,
        )
        if emitted:
            self._send(emitted, body, entry, to)
        work.append(stream, entry)
        if (end := work.ends.of(cause.saga)) and not stream.has_ended_it:
            self._close_late(entry, end)

    def _send(self, emitted: Event, body: bytes | None, entry: Entry, to: StepState) -> None:
        """Send the event that follows from a move, and keep it in the move's entry."""
        cause = self.message.envelope
        envelope = cause.followed_by(type(emitted), at=entry.at, traceparent=entry.traceparent)
        self._address(envelope, to, emitted)
        sent = self._work.outgoing.send(envelope, emitted, body).message
        entry.emitted_id, entry.emitted_type = sent.message_id, sent.type
        entry.emitted_version, entry.emitted_body = emitted.__version__, sent.body.decode()

    def _address(self, envelope: Envelope, to: StepState, emitted: Event) -> None:
        """Mark the emitted event as the reply to a coordinator's command, where it is one."""
        if self.message.envelope.address:
            is_refusal, is_final = isinstance(emitted, Refusal), self.step.name in self._work.origin.final_steps
            envelope.reply = Reply(self.step.name, outcome_of(to, is_refusal=is_refusal, is_final=is_final))

    def _traceparent(self, outcome: str, *, is_emitted: bool) -> str | None:
        """Return the span that the next entry and its emitted event belong to.

        It is the span of the attempt before the entry. Without an attempt, an emitted event gets a span of its own.
        """
        attempt, self._attempt = self._attempt, None
        if attempt is None and is_emitted:
            attempt = self._work.span_of_its_own(self.step, self.message)
        if attempt is None:
            return self.message.envelope.traceparent
        attempt.outcome = str(outcome)
        return attempt.span.traceparent if attempt.span else self.message.envelope.traceparent

    def _close_late(self, entry: Entry, end: SagaState) -> None:
        """Append the end behind a step that moved after its saga had ended."""
        if late := log_entries.late_end(entry, end, position=self.stream.position + 1):
            self._work.append(self.stream, late)

    def _leave_gate(self, to: StepState) -> None:
        """Delete the timer of a join that moves on, and its next reminder; announce that its question is decided."""
        if to is StepState.GATHERING or not self.step.signature.is_join:
            return
        self._work.outgoing.cancel_timer(self.key)
        if self.step.remind:
            self._work.outgoing.cancel_reminder(self.key, self.stream.reminders + 1)
        deadline, now = self.stream.deadline, self._work.origin.now
        if is_question_open(self.step, self.stream.gathered) and (deadline is None or now < deadline):
            self._waits_until(now)

    def _waits_until(self, moment: datetime) -> None:
        """Announce until when the saga waits for an answer to this step."""
        cause = self.message.envelope
        event = SagaWaits(saga_type=cause.saga_type, saga_id=cause.saga_id, step=self.step.name, until=moment)
        self._work.outgoing.send(about_one_saga(event, now=self._work.origin.now, traceparent=cause.traceparent), event)

    def _note(self, note: Note, *, error: str | None, attempt: int = 0) -> Entry:
        stream, cause = self.stream, self.message.envelope
        entry = log_entries.note(
            self.key,
            note,
            service=self._work.origin.service,
            state=stream.state,
            saga_state=stream.saga_state or self._or_started(SagaState.PENDING),
            event=(cause.event_id, cause.event_type),
            attempt=attempt or stream.retries + 1,
            error=self._redacted(error),
            traceparent=self._traceparent(note, is_emitted=False),
            at=self._work.origin.now,
        )
        self._work.append(stream, entry)
        return entry

    def _built(self, event_type: type[Event], reason: str) -> Event:
        return self.step.saga.build(event_type, saga_id=self.message.envelope.saga_id, reason=reason)

    def _redacted(self, text: str | None) -> str | None:
        """Return a reason, an error or a traceback without the sensitive values of the events that caused it."""
        if not text:
            return text
        # PostgreSQL keeps no NUL in a text, and the text may come from anywhere.
        return redacted(text.replace("\0", ""), self.step, self.message, self.stream.completed_body)

    def _may_begin(self) -> bool:
        """Whether the saga begins with this step; one with a coordinator begins with the coordinator's own entry."""
        return self.message.envelope.address is None and self.step.saga.starts_with in self.step.triggers

    def _or_started(self, state: SagaState) -> SagaState:
        return SagaState.STARTED if state is SagaState.PENDING and self._may_begin() else state
