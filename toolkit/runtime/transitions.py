"""The transitions of one step of one saga: each verb appends one legal entry, and sends the message that follows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from toolkit.declaration.events import AbortRequested, Event, Refusal, SagaState, bounded
from toolkit.declaration.redaction import has_sensitive_fields
from toolkit.declaration.text_redaction import redact
from toolkit.ids import new_id
from toolkit.observability.metrics import Hit
from toolkit.protocol.fence import Note, StepState
from toolkit.runtime.step_entries import StepEntries

#: How long a message is deferred that meets a step whose outcome is unknown.
_DEFERRAL = timedelta(seconds=1)
#: The reason of a refusal by deadline.
_EXPIRED = "its deadline had passed when the event arrived"
#: Clocks differ, but a message's header must not defer it into the far future: so many seconds ahead at most.
_MOST_AHEAD = 60


class Transition(StepEntries):
    """The verbs of a step in the message's saga."""

    __slots__ = ()

    # -- the step moves ----------------------------------------------------------------------------------------

    def completed(self, event: Event) -> None:
        """The step is done; its event goes out, and ends the saga if it is an end event."""
        state = self.step.saga.state_after(type(event))
        self._move(StepState.COMPLETED, self._or_started(state), emitted=event)
        if state.is_ended:
            envelope = self.message.envelope
            self._work.ends.announce(envelope.saga, state)
            self._work.after_commit.ended(envelope, state, at=self._work.origin.now)

    def refused(self, refusal: Refusal) -> None:
        """The step refused; its refusal goes out and starts the compensation path.

        A reason is public, in this service and in each that receives it: sensitive values are redacted.
        """
        reason = bounded(self._redacted(refusal.reason) or "")
        if reason != refusal.reason:
            refusal = refusal.model_copy(update={"reason": reason})
        if has_sensitive_fields(type(refusal)):
            reason = redact(type(refusal), refusal.model_dump_json(), reason)
        self._move(StepState.FAILED, SagaState.COMPENSATING, emitted=refusal, error=reason)

    def refused_because(self, reason: str) -> None:
        """Refuse in the step's place: its retries are spent, or its deadline passed between two of them."""
        refusal = self._built(self.step.refusals[0], reason)
        assert isinstance(refusal, Refusal)  # noqa: S101 -- for the type checker; the declaration ensured it
        self.refused(refusal)

    def expired(self, reason: str = _EXPIRED) -> None:
        """Refuse in the step's place: its deadline had passed. The reason repeats no value, so nothing is redacted."""
        refusal = self._built(self.step.refusals[0], reason)
        self._move(StepState.FAILED, SagaState.COMPENSATING, emitted=refusal, error=reason)

    def fenced(self, event_type: type[Event]) -> None:
        """Fence the step: a compensation or an abort came before it, so it never takes effect; the event goes out."""
        is_abort = isinstance(self.message.event, AbortRequested)
        self._work.after_commit.hit(self.step, Hit.ABORT if is_abort else Hit.COMPENSATION_FIRST)
        reason = str(getattr(self.message.event, "reason", ""))
        self._move(
            StepState.FENCED,
            SagaState.COMPENSATING,
            emitted=self._built(event_type, reason),
            error=self._redacted(reason) or None,
        )

    def compensated(self, event: Event) -> None:
        """The step is undone; the event goes out that lets the step before it be undone."""
        self._move(StepState.COMPENSATED, SagaState.COMPENSATING, emitted=event)

    def executing(self) -> None:
        """Claim the external call of the step."""
        self._move(StepState.EXECUTING, self._or_started(SagaState.PENDING))

    def voiding(self, reason: str) -> None:
        """Give up the external call; from here on the step can't complete."""
        self._move(StepState.VOIDING, SagaState.COMPENSATING, error=self._redacted(reason))

    def compensating(self) -> None:
        """Claim the external call of the step's compensation."""
        self._move(StepState.COMPENSATING, SagaState.COMPENSATING)

    # -- the step stays where it is ----------------------------------------------------------------------------

    def retry(self, error: str, *, due_at: datetime) -> None:
        """The attempt failed; the same event comes back to this service at `due_at`."""
        attempt = self.stream.retries + 1
        self._note(Note.RETRYING, error=error)
        self._work.outgoing.send_back(self.message.on_attempt(attempt + 1), new_id(), due_at)

    def defer(self) -> None:
        """Defer the message: the step's outcome is unknown, so nothing may fence it yet.

        Copies of one event that are deferred until the same second share a row, so duplicates and nudges do not pile
        up. Each deferral takes a later second, so its row never equals the one that is just being delivered.
        """
        soon = int((self._work.origin.now + _DEFERRAL).timestamp())
        envelope = self.message.envelope
        second = max(soon, min(envelope.deferred_until, soon + _MOST_AHEAD)) + 1
        row_id = f"{self._work.origin.queue}:{envelope.event_id}@{second}"
        self._work.after_commit.hit(self.step, Hit.DEFERRED)
        self._work.outgoing.send_back(self.message.deferred_to(second), row_id, datetime.fromtimestamp(second, UTC))

    def ignored(self, why: str = "came too late") -> None:
        """Change nothing; a late event is noted, a duplicate is not."""
        event_id, event_type = self.message.envelope.event_id, self.message.envelope.event_type
        is_duplicate = event_id in self.stream.event_ids
        self._work.after_commit.hit(self.step, Hit.DUPLICATE if is_duplicate else Hit.LATE)
        if is_duplicate:
            return
        if self.stream.state is StepState.CONFIRMED and type(self.message.event) not in self.step.triggers:
            note = self._note(Note.IGNORED, error=f"{event_type} came after the saga was completed")
            self._work.after_commit.contradicted(note)
        else:
            self._note(Note.IGNORED, error=f"{event_type} {why}")

    def dead_letter(self, error: str, *, traceback: str | None = None, reason: str = "retries spent") -> None:
        """Give the message up, for this reason; the saga waits for an operator."""
        attempts = self.stream.retries + 1
        self._note(Note.DEAD_LETTERED, error=error)
        self._work.kept.keep(
            reason,
            self._redacted(error) or "",
            self.message.on_attempt(self.message.envelope.attempt),
            traceback=self._redacted(traceback),
            step=self.step.name,
            attempts=attempts,
        )
