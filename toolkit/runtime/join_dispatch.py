"""Decides what a message does to a join: it fills a slot, or the last one and the join runs, or it changes nothing.

The gate's state is the join's stream in the saga log; each arrival takes its next position, so of two that come to two
replicas at once, one is executed again and sees the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from toolkit.declaration.events import Refusal, SagaEnded
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.service import Service
from toolkit.messaging.envelope import Message
from toolkit.observability.metrics import Hit
from toolkit.persistence.saga_log_streams import Stream
from toolkit.protocol.fence import Arrival, Decision, StepState, decide
from toolkit.protocol.joins import Fill, Gate
from toolkit.runtime.failed_attempts import FailedAttempts
from toolkit.runtime.invocation import Failure
from toolkit.runtime.join_transitions import GateTransition, JoinTransition
from toolkit.runtime.joins import Joined, gate_of, is_question_open
from toolkit.runtime.step_runner import StepRunner, Transaction
from toolkit.runtime.unit_of_work import ExternalCall, is_of, stream_key

#: Runs, fences or defers a step's compensation once its gate is full.
Compensate = Callable[[Compensation, Message, Transaction, Joined], Awaitable[None]]
#: Whether a former step took the event, under another name.
WasTaken = Callable[[Step, Message, Transaction], bool]

_SURPLUS = "came after another event had filled its slot"


class JoinDispatch:
    """Dispatches messages to the joins of one service."""

    def __init__(
        self,
        service: Service,
        steps: StepRunner,
        failures: FailedAttempts,
        *,
        reminders: Mapping[str, timedelta],
        compensate: Compensate,
        was_taken_before: WasTaken,
    ) -> None:
        self._steps = steps
        self._failures = failures
        self._compensate = compensate
        self._was_taken_before = was_taken_before
        self._joins = {step.name: step for step in service.steps if step.signature.is_join}
        steps_that_remind = {name: step.remind for name, step in self._joins.items() if step.remind}
        self._reminders = {name: reminders.get(name, declared) for name, declared in steps_that_remind.items()}
        self._gates = {handler.name: gate_of(handler) for handler in service.handlers if handler.signature.is_join}

    async def dispatch(self, join: Step | Compensation, message: Message, tx: Transaction) -> None:
        """Let the message fill a slot of the join."""
        if isinstance(join, Step):
            await self._forward(join, message, tx)
        else:
            await self._back(join, message, tx)

    def timer(self, message: Message, tx: Transaction) -> None:
        """Refuse the step that the timer names, if it still gathers and its deadline has passed."""
        step = self._joins.get(message.envelope.timer)
        if step is None or not is_of(step.saga, message):
            return
        transition = JoinTransition(tx.work, step, message)
        stream = transition.stream
        if message.envelope.reminder:
            self._remind(step, transition, tx)
            return
        is_gathering = stream.state is StepState.GATHERING and not tx.work.ends.of(message.envelope.saga)
        if not (step.is_refusable and is_gathering and stream.deadline):
            return
        if self._failures.has_passed(stream.deadline):
            transition.expired(self._overdue(step, stream))
        else:
            transition.too_early(stream.deadline)

    def _remind(self, step: Step, transition: JoinTransition, tx: Transaction) -> None:
        """Remind of the step's question, if it is still open and this reminder is not a copy."""
        envelope, stream = transition.message.envelope, transition.stream
        period, is_next = self._reminders.get(step.name), envelope.reminder == stream.reminders + 1
        if period and is_next and _is_open(step, stream) and not tx.work.ends.of(envelope.saga):
            transition.reminded(period)

    def ended(self, ended: SagaEnded, tx: Transaction) -> None:
        """Delete the timers of sagas that have ended."""
        for step in self._joins.values():
            if step.is_refusable and step.saga.name == ended.saga_type:
                for saga_id in (*ended.completed, *ended.failed):
                    tx.work.outgoing.cancel_timer((ended.saga_type, saga_id, step.name))

    # -- steps -------------------------------------------------------------------------------------------------

    async def _forward(self, step: Step, message: Message, tx: Transaction) -> None:
        transition = JoinTransition(tx.work, step, message)
        stream, envelope = transition.stream, message.envelope
        envelope.started_at = envelope.started_at or stream.started_at  # an answer from outside does not have it
        decision = decide(Arrival.FORWARD, stream.state)
        fill = self._fill(self._gates[step.name], stream, message)
        if decision is Decision.IGNORE or stream.state in (StepState.EXECUTING, StepState.VOIDING):
            self._forward_when_begun(step, transition, decision, fill, tx)
        elif fill is Fill.DUPLICATE or fill is Fill.SURPLUS:
            transition.ignored(_SURPLUS)
        elif tx.work.ends.of(envelope.saga) or (stream.state is None and self._was_taken_before(step, message, tx)):
            transition.ignored()
        elif stream.state is None and self._failures.is_late(step, message):
            transition.expired()
        elif step.is_refusable and self._failures.has_passed(stream.deadline):
            transition.expired(self._overdue(step, stream))
        elif fill is Fill.ONE:
            first = self._failures.deadline(step, message) if stream.state is None else stream.deadline
            was_open = _is_open(step, stream)
            transition.gathered(deadline=first)
            if not was_open and _is_open(step, stream):
                transition.asked()
                if period := self._reminders.get(step.name):
                    transition.remind_in(period)
        else:
            await self._run(step, transition, tx)

    def _forward_when_begun(
        self, step: Step, transition: JoinTransition, decision: Decision, fill: Fill, tx: Transaction
    ) -> None:
        """Make the external call again for a copy of one of its events; ignore all else."""
        if decision is Decision.IGNORE or fill is not Fill.DUPLICATE:
            transition.ignored()
        else:
            joined = Joined(step, transition.stream.gathered, transition.stream.deadline)
            tx.calls.append(ExternalCall(decision, step, transition.message, joined=joined))

    async def _run(self, step: Step, transition: JoinTransition, tx: Transaction) -> None:
        """Run the step with the events of all its slots."""
        stream, message = transition.stream, transition.message
        joined = transition.joined = Joined(step, stream.gathered, stream.deadline)
        if step.external:
            transition.executing()
            joined = Joined(step, stream.gathered, stream.deadline)  # the log keeps all of its events now
            tx.calls.append(ExternalCall(Decision.RUN, step, message, joined=joined))
            return
        result = await self._steps.run(step, transition, tx, joined=joined)
        if isinstance(result, Failure):
            self._failures.retry_or_refuse(transition, result)
        elif isinstance(result, Refusal):
            transition.refused(result)
        else:
            transition.completed(result)

    def _overdue(self, step: Step, stream: Stream) -> str:
        gathered = [event.event_type for event in stream.gathered]
        return f"its deadline passed; waited for {self._gates[step.name].waits_for(gathered)}"

    # -- compensations -----------------------------------------------------------------------------------------

    async def _back(self, compensation: Compensation, message: Message, tx: Transaction) -> None:
        """Gather in the stream of the compensation; once its gate is full, do to the step what any compensation does.

        The last arrival is gathered, too: where the compensation is retried or deferred, its gate stays full.
        """
        gate, transition = self._gates[compensation.name], GateTransition(tx.work, compensation, message)
        step_state = tx.work.stream(stream_key(compensation.of, message)).state
        is_moot = decide(Arrival.COMPENSATION, step_state) is Decision.IGNORE
        fill = self._fill(gate, transition.stream, message)
        if fill is Fill.SURPLUS:
            transition.ignored(_SURPLUS)
            return
        if fill is Fill.DUPLICATE and (is_moot or not gate.is_full(transition.stream.gathered)):
            tx.work.after_commit.hit(compensation.of, Hit.DUPLICATE)
            return
        if fill is not Fill.DUPLICATE and not is_moot:
            transition.arrived()
        if is_moot or gate.is_full(transition.stream.gathered):
            await self._compensate(compensation, message, tx, Joined(compensation, transition.stream.gathered))

    @staticmethod
    def _fill(gate: Gate, stream: Stream, message: Message) -> Fill:
        envelope = message.envelope
        return gate.fill(stream.gathered, event_id=envelope.event_id, event_type=envelope.event_type)


def _is_open(step: Step, stream: Stream) -> bool:
    return stream.state is StepState.GATHERING and is_question_open(step, stream.gathered)
