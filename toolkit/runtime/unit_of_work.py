"""What one transaction is going to write: log entries, outgoing messages, dead letters.

Each verb appends one legal entry to a step's stream, together with the message that follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit import failpoints
from toolkit.declaration.encoding import Original
from toolkit.declaration.events import (
    AbortRequested,
    EndRequested,
    Event,
    Refusal,
    Saga,
    SagaEnded,
    SagaState,
    bounded,
)
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.redaction import has_sensitive_fields
from toolkit.declaration.text_redaction import redact
from toolkit.errors import describe
from toolkit.ids import new_id
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import Envelope, Message, WireMessage, about_one_saga
from toolkit.observability.metrics import Hit, Meter
from toolkit.observability.tracing import Tracing, now
from toolkit.persistence import dead_letters, outbox, saga_log
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_ends import close_sagas, contradiction
from toolkit.persistence.saga_log import Entry, SagaKey, StreamKey
from toolkit.persistence.saga_log_streams import Stream
from toolkit.protocol.fence import Decision, Note, StepState, is_legal
from toolkit.runtime.after_commit import AfterCommit, Attempt, redacted

#: How long a message waits that met a step whose outcome is still unknown.
_DEFERRAL = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class ExternalCall:
    """An outside call that this transaction makes room for; it follows after the commit.

    With `failed` it is not made, but has failed with this error, which the commit of its outcome brought about before.
    """

    decision: Decision
    step: Step
    message: Message
    compensation: Compensation | None = None
    original: Original | None = None
    failed: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who writes, when, and when its messages come due unless they are sent before."""

    service: str
    queue: str
    now: datetime
    outgoing_due: datetime


class UnitOfWork:
    """The unit of work of one transaction; nothing leaves it before `write`, and nothing is sent before the commit."""

    def __init__(self, origin: Origin, streams: dict[StreamKey, Stream], *, tracing: Tracing | None = None) -> None:
        self.origin = origin
        self.entries: list[Entry] = []
        self.outgoing: list[OutboxRow] = []
        self.delayed: list[OutboxRow] = []
        self.dead_letters: list[DeadLetter] = []
        self.calls: list[ExternalCall] = []
        self._streams = streams
        self._tracing = tracing
        self._after_commit = AfterCommit(tracing)
        self._latest: dict[StreamKey, Attempt] = {}
        self._closings: list[tuple[str, SagaEnded]] = []
        self._ended: dict[str, dict[SagaState, list[str]]] = {}
        self._ends = {key[:2]: stream.end for key, stream in streams.items() if stream.end}
        self.answered: list[str] = []

    def stream(self, step: Step, message: Message) -> Stream:
        """Return where this step of the message's saga stands."""
        return self._streams.setdefault(stream_key(step, message), Stream())

    def knows(self, saga: SagaKey) -> bool:
        """Whether this service's log has any entry of the saga."""
        return any(stream.saga_state for key, stream in self._streams.items() if key[:2] == saga)

    def end_of(self, envelope: Envelope) -> SagaState | None:
        """Return how the message's saga has ended, where the log knew it before this transaction."""
        return self._ends.get(envelope.saga)

    def has_ended_here(self, envelope: Envelope) -> bool:
        """Whether it was a step of this service that ended the message's saga."""
        return any(stream.has_ended_it for key, stream in self._streams.items() if key[:2] == envelope.saga)

    def has_taken(self, key: StreamKey, message: Message, step: Step) -> bool:
        """Whether the stream with this key, of a former step, took the message or one that the saga begins with."""
        stream = self._streams.get(key)
        if stream is None or stream.state is None:
            return False
        return message.envelope.event_id in stream.event_ids or type(message.event) is step.saga.starts_with

    def attempted(self, attempt: Attempt) -> None:
        """A function was run; the entry that follows says what came of it."""
        stream = self.stream(attempt.step, attempt.message)
        attempt.number, attempt.original = stream.retries + 1, stream.completed_body
        self._after_commit.attempted(attempt)
        self._latest[stream_key(attempt.step, attempt.message)] = attempt

    # -- a step moves ------------------------------------------------------------------------------------------

    def completed(self, step: Step, message: Message, event: Event) -> None:
        """The step is done; its event goes out, and ends the saga if it is one that does."""
        state = step.saga.state_after(type(event))
        self._move(step, message, StepState.COMPLETED, self._or_started(step, state), emitted=event)
        if state.is_ended:
            self._has_ended(message.envelope, state)
            self._after_commit.ended(message.envelope, state, at=self.origin.now)

    def refused(self, step: Step, message: Message, refusal: Refusal) -> None:
        """The step said no; its refusal goes out and starts the way back.

        A reason is for everybody, here and in each service that passes it on: it goes out without what is sensitive.
        """
        reason = bounded(self._tellable(refusal.reason, step, message) or "")
        if reason != refusal.reason:
            refusal = refusal.model_copy(update={"reason": reason})
        if has_sensitive_fields(type(refusal)):
            reason = redact(type(refusal), refusal.model_dump_json(), reason)
        self._move(step, message, StepState.FAILED, SagaState.COMPENSATING, emitted=refusal, error=reason)

    def refused_for(self, step: Step, message: Message, reason: str) -> None:
        """Refuse in the step's name: the deadline passed, or the retries are spent."""
        refusal = step.saga.build(step.refusals[0], saga_id=message.envelope.saga_id, reason=reason)
        assert isinstance(refusal, Refusal)  # noqa: S101 -- tells the type checker what the declaration ensured
        self.refused(step, message, refusal)

    def fenced(self, step: Step, message: Message, event_type: type[Event]) -> None:
        """The way back, or an abort, came before the step: it will never run, and the chain goes on."""
        is_abort = isinstance(message.event, AbortRequested)
        self._after_commit.hit(step, Hit.ABORT if is_abort else Hit.COMPENSATION_FIRST)
        reason = reason_of(message.event)
        event = step.saga.build(event_type, saga_id=message.envelope.saga_id, reason=reason)
        self._move(step, message, StepState.FENCED, SagaState.COMPENSATING, emitted=event, error=reason or None)

    def compensated(self, step: Step, message: Message, event: Event) -> None:
        """The step is undone; the event goes out that lets the one before it be undone."""
        self._move(step, message, StepState.COMPENSATED, SagaState.COMPENSATING, emitted=event)

    def executing(self, step: Step, message: Message) -> None:
        """An outside call is about to begin."""
        self._move(step, message, StepState.EXECUTING, self._or_started(step, SagaState.PENDING))

    def voiding(self, step: Step, message: Message, reason: str) -> None:
        """The step gives up; from here on nobody can complete it any more."""
        self._move(step, message, StepState.VOIDING, SagaState.COMPENSATING, error=reason)

    def compensating(self, step: Step, message: Message) -> None:
        """The outside call of a compensation is about to begin."""
        self._move(step, message, StepState.COMPENSATING, SagaState.COMPENSATING)

    # -- a step stays where it is ------------------------------------------------------------------------------

    def retry(self, step: Step, message: Message, error: str, *, due_at: datetime) -> None:
        """The attempt failed; the same event comes back to this service at `due_at`."""
        attempt = self.stream(step, message).retries + 1
        self._note(step, message, Note.RETRYING, error=error)
        self._to_self(message.on_attempt(attempt + 1), new_id(), due_at)

    def defer(self, step: Step, message: Message) -> None:
        """Nothing may fence the step while its outcome is unknown: look again later.

        Copies of one event that wait for the same second are one row, so that duplicates and nudges don't pile up.
        Each time it is a later second, so that the row is never taken for the one that is just being delivered.
        """
        soon = int((self.origin.now + _DEFERRAL).timestamp())
        # Clocks may differ, but not so far that a stranger's header could send the message into the far future.
        second = max(soon, min(message.envelope.deferred_until, soon + 60)) + 1
        row_id = f"{self.origin.queue}:{message.envelope.event_id}@{second}"
        self._after_commit.hit(step, Hit.DEFERRED)
        self._to_self(message.deferred_to(second), row_id, datetime.fromtimestamp(second, UTC))

    def ignored(self, step: Step, message: Message) -> None:
        """Change nothing; a late event is noted, a duplicate is not worth it."""
        stream, event_type = self.stream(step, message), message.envelope.event_type
        is_duplicate = message.envelope.event_id in stream.event_ids
        self._after_commit.hit(step, Hit.DUPLICATE if is_duplicate else Hit.LATE)
        if is_duplicate:
            return
        if stream.state is StepState.CONFIRMED and type(message.event) not in step.triggers:
            self._note(step, message, Note.IGNORED, error=f"{event_type} came after the saga was completed")
            self._after_commit.contradicted(self.entries[-1])
        else:
            self._note(step, message, Note.IGNORED, error=f"{event_type} came too late")

    def dead_letter(self, step: Step, message: Message, error: str, *, traceback: str | None = None) -> None:
        """Give the message up; the saga waits for a person."""
        attempts = self.stream(step, message).retries + 1
        self._note(step, message, Note.DEAD_LETTERED, error=error)
        error = self._tellable(error, step, message) or ""
        traceback = self._tellable(traceback, step, message)
        self.dead_letters.append(
            DeadLetter(
                id=new_id(),
                service=self.origin.service,
                reason="retries spent",
                error=error,
                traceback=traceback,
                message=message.on_attempt(message.envelope.attempt),
                step=step.name,
                attempts=attempts,
                at=self.origin.now,
            )
        )

    def unreadable(self, item: Unreadable) -> None:
        """Keep a message that nobody can take, with the reason."""
        service, now = self.origin.service, self.origin.now
        self.dead_letters.append(
            DeadLetter(
                id=new_id(),
                service=service,
                reason=item.reason,
                error=item.detail,
                message=item.wire,
                saga_type=item.saga_type,
                at=now,
            )
        )

    def unrecordable(self, item: Message | Unreadable, error: BaseException) -> None:
        """Keep a message of which the saga log takes neither an outcome nor a failure."""
        wire, told = _as_it_came(item), describe(error)
        if isinstance(item, Message):
            told = redact(type(item.event), item.body, told)
        service, now = self.origin.service, self.origin.now
        self.dead_letters.append(
            DeadLetter(id=new_id(), service=service, reason="not recordable", error=told, message=wire, at=now)
        )

    def forgotten(self, message: Message) -> None:
        """Keep a message whose saga may have been pruned: nothing tells any more whether it was handled before."""
        self.dead_letters.append(
            DeadLetter(
                id=new_id(),
                service=self.origin.service,
                reason="older than the log",
                error=f"{message.envelope.event_type} is older than what was pruned from the saga log",
                message=message.on_attempt(message.envelope.attempt),
                at=self.origin.now,
            )
        )

    def answer(self, asked: str, envelope: Envelope, end: SagaState) -> None:
        """Send the end of a saga once more, to a service that has not received it; `asked` says by which message."""
        self.answered.append(asked)
        self._has_ended(envelope, end)

    def ask_for_end(self, asked: str, cause: Envelope) -> None:
        """Ask the service that ended a saga to send its end once more; `asked` says by which message it was missed."""
        if asked in self.answered:  # a copy came in the same batch
            return
        self.answered.append(asked)
        event = EndRequested(saga_type=cause.saga_type, saga_id=cause.saga_id)
        envelope = about_one_saga(event, now=self.origin.now, traceparent=cause.traceparent)
        self._send(envelope, event, event.model_dump_json().encode())

    def close(self, event_id: str, ended: SagaEnded) -> None:
        """Write, with the rest, that these sagas have ended."""
        self._closings.append((event_id, ended))

    # -- the end of the transaction ----------------------------------------------------------------------------

    async def write(self, connection: AsyncConnection) -> None:
        """Write all of it, one statement a table.

        Raises:
            PositionTakenError: somebody else moved one of the streams first.
        """
        self._tell_the_ends()
        await saga_log.append(connection, self.entries)
        failpoints.here("log-written", self.outcomes())
        await outbox.add(connection, [*self.outgoing, *self.delayed])
        failpoints.here("outbox-written", self.outcomes())
        await dead_letters.add(connection, self.dead_letters)
        for event_id, ended in self._closings:
            await close_sagas(connection, event_id, ended, now=self.origin.now)

    def outcomes(self) -> Iterator[str | None]:
        """Yield the events that brought a step on so that something goes out; an outside call to come is no outcome."""
        return (entry.event_type for entry in self.entries if entry.emitted_id)

    def report(self, meter: Meter) -> None:
        """Log, count and trace what was committed, and only that."""
        self._after_commit.make(meter, self.entries, self.dead_letters)

    def _has_ended(self, envelope: Envelope, end: SagaState) -> None:
        self._ended.setdefault(envelope.saga_type, {}).setdefault(end, []).append(envelope.saga_id)

    def _tell_the_ends(self) -> None:
        for saga_type, outcomes in self._ended.items():
            completed, failed = (outcomes.get(end, ()) for end in (SagaState.COMPLETED, SagaState.FAILED))
            ended = SagaEnded(
                saga_type=saga_type,
                completed=tuple(dict.fromkeys(completed)),
                failed=tuple(dict.fromkeys(failed)),
            )
            envelope = Envelope(
                event_id=new_id(),
                event_type=SagaEnded.__name__,
                version=SagaEnded.__version__,
                saga_id="",
                saga_type=saga_type,
                occurred_at=self.origin.now,
            )
            self._send(envelope, ended, ended.model_dump_json().encode())
        self._ended.clear()

    def _move(
        self,
        step: Step,
        message: Message,
        to: StepState,
        saga_state: SagaState,
        *,
        emitted: Event | None = None,
        error: str | None = None,
    ) -> None:
        stream, cause = self.stream(step, message), message.envelope
        assert is_legal(stream.state, to), f"{stream.state} → {to}"  # noqa: S101 -- the fence decided before
        body = self._body(step, message, emitted) if emitted else b""
        traceparent = self._traceparent(step, message, to, is_told=emitted is not None)
        emitted_event = self._emit(cause, emitted, body, traceparent) if emitted else None
        if stream.state is None and cause.event_type == step.saga.starts_with.__name__:
            self._after_commit.began(cause)
        entry = Entry(
            service=self.origin.service,
            saga_id=cause.saga_id,
            saga_type=step.saga.name,
            step=step.name,
            position=stream.position + 1,
            from_state=stream.state,
            to_state=to,
            saga_state=saga_state,
            event_id=cause.event_id,
            event_type=cause.event_type,
            emitted_id=emitted_event.message.message_id if emitted_event else None,
            emitted_type=emitted_event.message.type if emitted_event else None,
            emitted_version=emitted.__version__ if emitted else None,
            emitted_body=emitted_event.message.body.decode() if emitted_event else None,
            attempt=stream.retries + 1,
            error=self._tellable(error, step, message),
            deadline=cause.deadline,
            traceparent=traceparent,
            started_at=cause.started_at,
            at=self.origin.now,
        )
        self._append(stream, entry)
        if (end := self.end_of(cause)) and not stream.has_ended_it:
            self._close_late(stream, entry, end)

    def _close_late(self, stream: Stream, entry: Entry, end: SagaState) -> None:
        """Write the end behind a step that has moved although its saga is known to have ended."""
        is_confirmed = end is SagaState.COMPLETED and entry.to_state == StepState.COMPLETED
        error = contradiction(entry.to_state, end)
        if is_confirmed or error:
            late = replace(
                entry,
                position=stream.position + 1 if is_confirmed else None,
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
            self._append(stream, late)

    def _traceparent(self, step: Step, message: Message, outcome: str, *, is_told: bool) -> str | None:
        """Return the span that an entry stands for, and that what it emits comes of.

        That of the attempt before it; without one, of its own, if it says anything: a fence, or a refusal for lateness.
        """
        cause = message.envelope
        attempt = self._latest.pop(stream_key(step, message), None)
        if attempt is None and is_told and self._tracing:
            attempt = Attempt(step, message, self._tracing.begin(step.name, cause, queue=self.origin.queue))
            attempt.ended = now()
            self._after_commit.attempted(attempt)
        if attempt is None:
            return cause.traceparent
        attempt.outcome = str(outcome)
        return attempt.span.traceparent if attempt.span else cause.traceparent

    def _note(self, step: Step, message: Message, note: Note, *, error: str | None) -> None:
        stream, cause = self.stream(step, message), message.envelope
        entry = Entry(
            service=self.origin.service,
            saga_id=cause.saga_id,
            saga_type=step.saga.name,
            step=step.name,
            position=None,
            from_state=stream.state,
            to_state=note,
            saga_state=stream.saga_state or self._or_started(step, SagaState.PENDING),
            event_id=cause.event_id,
            event_type=cause.event_type,
            attempt=stream.retries + 1,
            error=self._tellable(error, step, message),
            traceparent=self._traceparent(step, message, note, is_told=False),
            at=self.origin.now,
        )
        self._append(stream, entry)

    def _tellable(self, text: str | None, step: Step, message: Message) -> str | None:
        """Return a reason, an error or a traceback without what is sensitive of the events that brought it about."""
        if not text:
            return text
        # It may come from anywhere, and PostgreSQL keeps no NUL in a text.
        return redacted(text.replace("\0", ""), step, message, self.stream(step, message).completed_body)

    def _append(self, stream: Stream, entry: Entry) -> None:
        self.entries.append(entry)
        stream.advance(entry)

    def _body(self, step: Step, message: Message, event: Event) -> bytes:
        """Return an event's body: as it was when its step returned it, or of one that the toolkit has made."""
        attempt = self._latest.get(stream_key(step, message))
        returned = attempt.body if attempt and attempt.result is event else None
        return returned or event.model_dump_json().encode()

    def _emit(self, cause: Envelope, event: Event, body: bytes, traceparent: str | None) -> OutboxRow:
        envelope = Envelope(
            event_id=new_id(),
            event_type=type(event).__name__,
            version=event.__version__,
            saga_id=cause.saga_id,
            saga_type=cause.saga_type,
            occurred_at=self.origin.now,
            causation_id=cause.event_id,
            deadline=cause.deadline,
            traceparent=traceparent,
            started_at=cause.started_at,
        )
        return self._send(envelope, event, body)

    def _send(self, envelope: Envelope, event: Event, body: bytes) -> OutboxRow:
        message = envelope.wrap(body, type(event))
        row = OutboxRow(id=new_id(), message=message, due_at=self.origin.outgoing_due, optional=event.__optional__)
        self.outgoing.append(row)
        return row

    def _to_self(self, wire: WireMessage, row_id: str, due_at: datetime) -> None:
        self.delayed.append(OutboxRow(id=row_id, message=wire, due_at=due_at, destination=self.origin.queue))

    def _or_started(self, step: Step, state: SagaState) -> SagaState:
        begins = step.saga.starts_with in step.triggers and state is SagaState.PENDING
        return SagaState.STARTED if begins else state


def sagas_of(items: Iterable[Message | Unreadable]) -> list[str]:
    """Return the ids of the sagas that these messages belong to."""
    return [item.envelope.saga_id for item in items if isinstance(item, Message) and item.envelope.saga_id]


def events_of(items: Iterable[Message | Unreadable]) -> Iterator[str]:
    """Yield the names of the events that these messages bring."""
    return (item.envelope.event_type for item in items if isinstance(item, Message))


def reason_of(event: Event) -> str:
    """Return why the way back began, as far as the event tells."""
    return str(getattr(event, "reason", ""))


def stream_key(step: Step, message: Message) -> StreamKey:
    """Return which stream this step of the message's saga has."""
    return step.saga.name, message.envelope.saga_id, step.name


def is_of(saga: Saga, message: Message) -> bool:
    """Whether the message belongs to a saga of this type."""
    return message.envelope.saga_type == saga.name


def _as_it_came(item: Message | Unreadable) -> WireMessage:
    return item.wire if isinstance(item, Unreadable) else item.on_attempt(item.envelope.attempt)
