"""The entries that a unit of work appends to the stream of one step of one saga."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit.declaration.events import Event, SagaEnded, SagaState
from toolkit.declaration.participant import Step
from toolkit.messaging.envelope import Message
from toolkit.persistence import log_entries
from toolkit.persistence.saga_ends import contradiction
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import Note, StepState, is_legal
from toolkit.runtime.after_commit import redacted

if TYPE_CHECKING:
    from toolkit.runtime.unit_of_work import UnitOfWork


class StepEntries:
    """A step of the message's saga, its stream, and the entries that the message adds to it."""

    __slots__ = ("_work", "key", "message", "step", "stream")

    def __init__(self, work: UnitOfWork, step: Step, message: Message) -> None:
        self._work = work
        self.step = step
        self.message = message
        self.key = step.saga.name, message.envelope.saga_id, step.name
        self.stream = work.stream(self.key)

    def _move(
        self, to: StepState, saga_state: SagaState, *, emitted: Event | None = None, error: str | None = None
    ) -> None:
        stream, cause, work = self.stream, self.message.envelope, self._work
        assert is_legal(stream.state, to), f"{stream.state} → {to}"  # noqa: S101 -- the fence decided before
        body = work.body_of(self.key, emitted) if emitted else None
        traceparent = work.traceparent(self.step, self.message, to, is_emitted=emitted is not None)
        facts: dict[str, object] = {}
        if emitted:
            envelope = cause.followed_by(type(emitted), at=work.origin.now, traceparent=traceparent)
            sent = work.send(envelope, emitted, body).message
            facts = {
                "emitted_id": sent.message_id,
                "emitted_type": sent.type,
                "emitted_version": emitted.__version__,
                "emitted_body": sent.body.decode(),
            }
        if stream.state is None and cause.event_type == self.step.saga.starts_with.__name__:
            work.after_commit.began(cause)
        entry = log_entries.move(
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
            error=self._redacted(error),
            deadline=cause.deadline,
            traceparent=traceparent,
            started_at=cause.started_at,
            **facts,
        )
        work.append(stream, entry)
        if (end := work.ends.of(cause.saga)) and not stream.has_ended_it:
            self._close_late(entry, end)

    def _close_late(self, entry: Entry, end: SagaState) -> None:
        """Append the end behind a step that moved after its saga had ended."""
        is_confirmed = end is SagaState.COMPLETED and entry.to_state == StepState.COMPLETED
        error = contradiction(entry.to_state, end)
        if not (is_confirmed or error):
            return
        late = replace(
            entry,
            position=self.stream.position + 1 if is_confirmed else None,
            from_state=entry.to_state,
            to_state=StepState.CONFIRMED if is_confirmed else Note.ENDED,
            saga_state=end,
            event_id=None,
            event_type=SagaEnded.__name__,
            emitted_id=None,
            emitted_type=None,
            emitted_body=None,
            emitted_version=None,
            attempt=1,
            error=error,
        )
        self._work.append(self.stream, late)

    def _note(self, note: Note, *, error: str | None) -> Entry:
        stream, cause = self.stream, self.message.envelope
        entry = log_entries.note(
            self.key,
            note,
            service=self._work.origin.service,
            state=stream.state,
            saga_state=stream.saga_state or self._or_started(SagaState.PENDING),
            event=(cause.event_id, cause.event_type),
            attempt=stream.retries + 1,
            error=self._redacted(error),
            traceparent=self._work.traceparent(self.step, self.message, note, is_emitted=False),
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

    def _or_started(self, state: SagaState) -> SagaState:
        begins = self.step.saga.starts_with in self.step.triggers and state is SagaState.PENDING
        return SagaState.STARTED if begins else state
