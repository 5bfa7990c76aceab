"""Handles the control messages about one saga at one service: its abort, its end, and its wait for an answer."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import structlog

from toolkit.clock import Clock
from toolkit.configuration.settings import SHORTEST_RETENTION
from toolkit.declaration.events import SagaWaits
from toolkit.declaration.service import Service
from toolkit.messaging.envelope import Message
from toolkit.persistence.database_errors import recording
from toolkit.protocol.fence import Arrival, Decision, decide
from toolkit.runtime.asked_steps import AskedSteps
from toolkit.runtime.coordination import Coordination
from toolkit.runtime.step_runner import Transaction
from toolkit.runtime.transitions import Transition
from toolkit.runtime.unit_of_work import is_of

log = structlog.get_logger("toolkit")

#: So many requests for an end are remembered as answered, so that their copies are not: enough for a storm of them.
_MOST_ANSWERED = 10_000


class ControlMessages:
    """Aborts the sagas of one service, and answers the services that missed an end; each request once."""

    def __init__(self, service: Service, *, clock: Clock, asked: AskedSteps, coordination: Coordination | None) -> None:
        self._service = service
        self._clock = clock
        self._asked = asked
        self._coordination = coordination
        self._saga_types = frozenset(saga.name for saga in service.sagas)
        self._answered: dict[str, None] = {}

    def end_requested(self, message: Message, tx: Transaction) -> None:
        """Answer where this service ended the saga; else the service that ended it answers."""
        if tx.work.ends.ended_here(message.envelope.saga):
            self.answer(message.envelope.event_id, message, tx)

    async def waits(self, wait: SagaWaits, tx: Transaction) -> None:
        """Record until when a saga waits for an answer, if the service takes part in such sagas."""
        if wait.saga_type in self._saga_types:
            with recording():
                await tx.database.hold((wait.saga_type, wait.saga_id, wait.step), wait.until)

    async def abort(self, message: Message, tx: Transaction) -> None:
        """Fence each refusable step that has not begun; the first of them in the saga's order starts the compensation.

        A coordinator gives up the steps that it waits for; those are not fenced by themselves. No step of an ended saga
        is fenced: the service that ended it answers with the end. No step of a saga that may have been pruned is fenced
        either: only ended sagas are pruned.
        """
        envelope = message.envelope
        if tx.work.ends.of(envelope.saga):
            if tx.work.ends.ended_here(envelope.saga):
                self.answer(envelope.event_id, message, tx)
            return
        if await self.may_be_pruned(message, tx, envelope.started_at or envelope.occurred_at):
            saga = {"saga_type": envelope.saga_type, "saga_id": envelope.saga_id}
            log.warning("abort of a saga that may have been pruned; it is ignored", **saga)
            return
        if self._coordination and self._coordination.dispatch(message, tx.work):
            return
        for step in self._service.steps:
            if not (step.is_refusable and is_of(step.saga, message)) or step in self._asked:
                continue
            transition = Transition(tx.work, step, message)
            decision = decide(Arrival.ABORT, transition.stream.state)
            if decision is Decision.FENCE:
                transition.fenced(step.refusals[0])
            elif decision is Decision.DEFER:
                transition.defer()

    def answer(self, request_id: str, message: Message, tx: Transaction) -> None:
        """Answer a service that missed the saga's end, where the end is known here; once for each request."""
        if request_id not in self._answered:
            envelope = message.envelope
            now = tx.work.origin.now
            tx.work.ends.answer(request_id, envelope.saga, now=now, traceparent=envelope.traceparent)

    def committed(self, answered: Collection[str]) -> None:
        """Remember the ids of the messages that a committed transaction has answered."""
        self._answered.update(dict.fromkeys(answered))
        while len(self._answered) > _MOST_ANSWERED:
            del self._answered[next(iter(self._answered))]

    async def may_be_pruned(self, message: Message, tx: Transaction, occurred_at: datetime) -> bool:
        """Whether the log does not know the saga, and may have known it before it was pruned."""
        if occurred_at > self._clock.now() - SHORTEST_RETENTION or tx.work.knows(message.envelope.saga):
            return False
        with recording():
            return await tx.database.may_have_pruned(occurred_at)
