"""The transitions of a join: its log keeps the events that fill its slots, and a timer stands for its deadline."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from toolkit.declaration.events import Answer, Event, Refusal, SagaState
from toolkit.declaration.participant import Compensation, Step
from toolkit.messaging.envelope import Message
from toolkit.persistence import log_entries
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import Note, StepState
from toolkit.runtime.joins import Joined
from toolkit.runtime.transitions import Transition
from toolkit.runtime.unit_of_work import UnitOfWork

#: Until when a saga waits at most for an answer to a step that has no timeout.
_NO_DEADLINE = datetime(9999, 1, 1, tzinfo=UTC)


class JoinTransition(Transition):
    """The verbs of a step that joins, or that a compensation undoes that joins."""

    __slots__ = ("joined",)

    def __init__(self, work: UnitOfWork, step: Step, message: Message, *, joined: Joined | None = None) -> None:
        super().__init__(work, step, message)
        #: What has been gathered; the message fills a slot itself where an entry follows that keeps it.
        self.joined = joined

    def gathered(self, *, deadline: datetime | None) -> None:
        """The event fills a slot, and others are empty; at the first one, set the timer of the step's deadline."""
        is_first = self.stream.state is None
        is_back = self.step.success is self.step.saga.fails_with or isinstance(self.message.event, Refusal)
        state = SagaState.COMPENSATING if is_back else self._or_started(SagaState.PENDING)
        self._move(StepState.GATHERING, state, made_by=partial(self._gathering, deadline))
        if is_first and deadline:
            self._work.outgoing.set_timer(self.message.as_timer(self.step.name), self.key, deadline)

    def asked(self) -> None:
        """The question is open: before the step's deadline no service takes the saga for overdue."""
        self._waits_until(self.stream.deadline or _NO_DEADLINE)

    def remind_in(self, period: timedelta) -> None:
        """Set the next reminder of the step's open question."""
        number = self.stream.reminders + 1
        wire = self.message.as_timer(self.step.name, reminder=number)
        self._work.outgoing.set_reminder(wire, self.key, number, self._work.origin.now + period)

    def reminded(self, period: timedelta) -> None:
        """Note that the question is still open; the note's attempt is the number of the reminder."""
        self._note(Note.REMINDED, error=None, attempt=self.message.envelope.reminder)
        self.remind_in(period)

    def too_early(self, deadline: datetime) -> None:
        """Wait for the deadline again: by this replica's clock the timer came before it."""
        self._work.outgoing.set_timer_again(self.message.as_timer(self.step.name), self.key, deadline)

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
        if made_by is log_entries.move and self.joined and self.joined.is_filled_by(self.message):
            made_by = self._arrival
        super()._move(to, saga_state, emitted=emitted, body=body, error=error, made_by=made_by)

    def _gathering(self, until: datetime | None, /, *key: Any, **facts: Any) -> Entry:
        return self._arrival(*key, **(facts | {"deadline": until}))

    def _arrival(self, *key: Any, **facts: Any) -> Entry:
        """Return the entry with the event that fills a slot."""
        self._work.has_arrivals = True
        envelope = self.message.envelope
        facts |= {"event_version": envelope.version, "event_body": self.message.body.decode()}
        if isinstance(self.message.event, Answer):
            facts["event_by"] = envelope.answered_by or envelope.sent_by or None
        return log_entries.arrival(*key, **facts)

    def _redacted(self, text: str | None) -> str | None:
        text = super()._redacted(text)
        return self.joined.redacted(text) if text and self.joined else text


class GateTransition(JoinTransition):
    """The gate of a compensation that joins, in a stream of its own: its step stands completed meanwhile."""

    __slots__ = ()

    def __init__(self, work: UnitOfWork, compensation: Compensation, message: Message) -> None:
        super().__init__(work, compensation.of, message)
        self.key = (*self.key[:2], compensation.name)
        self.stream = work.stream(self.key)

    def arrived(self) -> None:
        """The event fills a slot, be it the last one."""
        self._move(StepState.GATHERING, SagaState.COMPENSATING, made_by=self._arrival)
