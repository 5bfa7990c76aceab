"""What follows a failed attempt: a retry, a refusal, or a dead letter."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from toolkit.clock import Clock
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.retry_policy import GiveUp, after_failure
from toolkit.errors import describe
from toolkit.messaging.envelope import Message
from toolkit.runtime.invocation import Failure
from toolkit.runtime.transitions import Transition


class FailedAttempts:
    """Applies the retry policies and the deadlines of one service; `timeouts` override the declared ones by step."""

    def __init__(self, clock: Clock, timeouts: Mapping[str, timedelta]) -> None:
        self._clock = clock
        self._timeouts = timeouts

    def deadline(self, step: Step, message: Message, *, first: datetime | None = None) -> datetime | None:
        """Return when the step must refuse: after its own timeout, or at the whole saga's deadline.

        `first`: of a join, the deadline that counts from the first of its events.
        """
        if first or not step.is_refusable:
            return first
        timeout = self._timeouts.get(step.name, step.timeout)
        own = message.envelope.occurred_at + timeout if timeout else None
        return min((moment for moment in (own, message.envelope.deadline) if moment), default=None)

    def is_late(self, step: Step, message: Message) -> bool:
        """Whether the step's deadline has passed."""
        return self.has_passed(self.deadline(step, message))

    def has_passed(self, deadline: datetime | None) -> bool:
        """Whether it is this time, or later."""
        return deadline is not None and self._clock.now() >= deadline

    def retry(self, transition: Transition, failure: Failure) -> GiveUp | None:
        """Write the retry of a failed forward attempt, or return why there is none."""
        step, message = transition.step, transition.message
        decision = after_failure(
            failure.error,
            policy=step.retry,
            attempt=transition.stream.retries + 1,
            now=self._clock.now(),
            deadline=self.deadline(step, message, first=transition.stream.deadline),
        )
        if isinstance(decision, GiveUp):
            return decision
        transition.retry(describe(failure.error), due_at=decision.due_at)
        return None

    def retry_or_refuse(self, transition: Transition, failure: Failure) -> None:
        """Write a retry; once the retries are spent, the refusal, or a dead letter of a step that can't refuse."""
        if (spent := self.retry(transition, failure)) is None:
            return
        if transition.step.is_refusable:
            transition.refused_because(spent.reason)
        else:
            transition.dead_letter(spent.reason, traceback=failure.traceback())

    def retry_compensation(self, compensation: Compensation, transition: Transition, failure: Failure) -> None:
        """Write a retry; once the retries are spent, a dead letter: an operator must see to the compensation."""
        attempt = transition.stream.retries + 1
        decision = after_failure(
            failure.error, policy=compensation.retry, attempt=attempt, now=self._clock.now(), deadline=None
        )
        if isinstance(decision, GiveUp):
            transition.dead_letter(decision.reason, traceback=failure.traceback())
        else:
            transition.retry(describe(failure.error), due_at=decision.due_at)
