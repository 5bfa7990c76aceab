"""Decides, by the fence, what each message of a batch does: which steps and compensations it runs, fences or closes.

A plain step runs upon a stream that is taken as empty (see log_reads.py): for a duplicate the fence's key refuses the
entry, and the batch is executed again with its streams read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from toolkit.clock import Clock
from toolkit.declaration.contract import coordinators_of
from toolkit.declaration.events import AbortRequested, EndRequested, Event, Refusal, SagaEnded, SagaWaits
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.service import Service
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import Message
from toolkit.protocol.fence import Arrival, Decision, StepState, decide
from toolkit.runtime.asked_steps import AskedSteps
from toolkit.runtime.control_messages import ControlMessages
from toolkit.runtime.coordination import Coordination
from toolkit.runtime.failed_attempts import FailedAttempts
from toolkit.runtime.invocation import Failure
from toolkit.runtime.join_dispatch import JoinDispatch
from toolkit.runtime.join_transitions import JoinTransition
from toolkit.runtime.joins import Joined
from toolkit.runtime.step_runner import StepRunner, Transaction
from toolkit.runtime.transitions import Transition
from toolkit.runtime.unit_of_work import ExternalCall, is_of

#: What an event triggers that no step or compensation of the service takes.
_NOTHING: tuple[list[Step], list[Compensation], list[Step | Compensation]] = ([], [], [])


class Dispatch:
    """Dispatches the messages of one service.

    `former_steps` stand in the log by saga type and name, though this release does not declare them; `reminders`
    override the declared ones by step.
    """

    def __init__(
        self,
        service: Service,
        steps: StepRunner,
        failures: FailedAttempts,
        *,
        clock: Clock,
        former_steps: Collection[tuple[str, str]],
        asked_by: Mapping[str, str],
        reminders: Mapping[str, timedelta],
        coordination: Coordination | None = None,
    ) -> None:
        self._steps = steps
        self._failures = failures
        self._former_steps = former_steps
        self._coordination = coordination
        self._asked = AskedSteps(
            service, coordinators_of(service, asked_by), forward=self._forward, compensate=self._compensate
        )
        self._joins = JoinDispatch(
            service,
            steps,
            failures,
            reminders=reminders,
            compensate=self._compensate,
            was_taken_before=self._was_taken_before,
        )
        self._triggered = {event: _triggered_by(event, service, self._asked) for event in service.consumed()}
        self.controls = ControlMessages(service, clock=clock, asked=self._asked, coordination=coordination)

    async def dispatch(self, item: Message | Unreadable, tx: Transaction) -> list[ExternalCall]:
        """Dispatch a message, and return the external calls that it claims."""
        tx.calls = []
        if isinstance(item, Unreadable):
            tx.work.kept.unreadable(item)
        elif isinstance(item.event, SagaEnded):
            tx.work.ends.received.append((item.envelope.event_id, item.event))
            self._joins.ended(item.event, tx)
        elif isinstance(item.event, AbortRequested) and item.envelope.address is None:
            await self.controls.abort(item, tx)
        elif isinstance(item.event, EndRequested):
            self.controls.end_requested(item, tx)
        elif isinstance(item.event, SagaWaits):
            await self.controls.waits(item.event, tx)
        else:
            await self._event(item, tx)
        return tx.calls

    async def _event(self, message: Message, tx: Transaction) -> None:
        """Run the steps and compensations that the event triggers."""
        if message.envelope.timer:
            if not (self._coordination and self._coordination.dispatch(message, tx.work)):
                self._joins.timer(message, tx)
            return
        if message.envelope.nudge:
            self.controls.answer(message.envelope.nudge, message, tx)
        if await self.controls.may_be_pruned(message, tx, message.envelope.occurred_at):
            tx.work.kept.pruned(message)
            return
        if message.envelope.address:
            await self._asked.dispatch(message.envelope.address, message, tx)
            return
        if self._coordination and self._coordination.dispatch(message, tx.work):
            return
        steps, compensations, joins = self._triggered.get(type(message.event), _NOTHING)
        for step in steps:
            if is_of(step.saga, message):
                await self._forward(step, message, tx)
        for compensation in compensations:
            if is_of(compensation.of.saga, message):
                await self._compensate(compensation, message, tx)
        for join in joins:
            if is_of(join.saga, message):
                await self._joins.dispatch(join, message, tx)

    async def _forward(self, step: Step, message: Message, tx: Transaction) -> None:
        transition = Transition(tx.work, step, message)
        state = transition.stream.state
        decision = decide(Arrival.FORWARD, state)
        if decision is Decision.IGNORE or (state is None and self._was_taken_before(step, message, tx)):
            transition.ignored()
        elif state is None and self._failures.is_late(step, message):
            transition.expired()
        elif step.external:
            if state is None:
                transition.executing()
            tx.calls.append(ExternalCall(decision, step, message))
        else:
            result = await self._steps.run(step, transition, tx)
            if isinstance(result, Failure):
                self._failures.retry_or_refuse(transition, result)
            elif isinstance(result, Refusal):
                transition.refused(result)
            else:
                transition.completed(result)

    async def _compensate(
        self, compensation: Compensation, message: Message, tx: Transaction, joined: Joined | None = None
    ) -> None:
        step = compensation.of
        transition = (
            JoinTransition(tx.work, step, message, joined=joined) if joined else Transition(tx.work, step, message)
        )
        stream = transition.stream
        decision = decide(Arrival.COMPENSATION, stream.state)
        if decision is Decision.FENCE and not self._was_taken_before(step, message, tx):
            transition.fenced(compensation.emits)
        elif decision is Decision.DEFER:
            transition.defer()
        elif decision in (Decision.IGNORE, Decision.FENCE):
            transition.ignored()
            if stream.state is StepState.CONFIRMED:
                self.controls.answer(message.envelope.event_id, message, tx)
        elif step.external:
            if stream.state is StepState.COMPLETED:
                transition.compensating()
            original = stream.original
            tx.calls.append(ExternalCall(decision, step, message, compensation, original, joined=joined))
        else:
            result = await self._steps.run(compensation, transition, tx, original=stream.original, joined=joined)
            if isinstance(result, Failure):
                self._failures.retry_compensation(compensation, transition, result)
            else:
                transition.compensated(result)

    def _was_taken_before(self, step: Step, message: Message, tx: Transaction) -> bool:
        """Whether a former step took this event, or the saga's first one: under another name, the step is done."""
        return any(
            tx.work.was_taken((saga_type, message.envelope.saga_id, name), message, step)
            for saga_type, name in self._former_steps
            if saga_type == step.saga.name
        )


def _triggered_by(
    event: type[Event], service: Service, asked: AskedSteps
) -> tuple[list[Step], list[Compensation], list[Step | Compensation]]:
    """Return the steps and the compensations that run on the event, and the joins of which it fills a slot.

    Those that a coordinator asks run on its commands alone; none of them is a join.
    """
    steps = [step for step in service.steps if event in step.triggers and step not in asked]
    compensations = [each for each in service.compensations if event in each.triggers and each.of not in asked]
    joins = [each for each in service.handlers if each.signature.is_join and event in each.triggers]
    return (
        [step for step in steps if step not in joins],
        [each for each in compensations if each not in joins],
        joins,
    )
