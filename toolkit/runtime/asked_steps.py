"""Runs the steps that a coordinator asks: each on its command alone, and its compensation likewise.

The steps are those of any service. A command carries the event that its step takes, or asks the service to build that
from the saga's id and a reason, as a fence does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from toolkit.declaration.events import AbortRequested, Event, Saga
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.service import Service
from toolkit.errors import SettingsError
from toolkit.messaging.envelope import Message
from toolkit.observability.metrics import Hit
from toolkit.protocol.commands import Address, Verb
from toolkit.protocol.fence import Arrival, Decision, StepState, decide
from toolkit.runtime.step_runner import Transaction
from toolkit.runtime.transitions import Transition
from toolkit.runtime.unit_of_work import is_of

#: Runs a step, or a compensation, by the fence.
Forward = Callable[[Step, Message, Transaction], Awaitable[None]]
Compensate = Callable[[Compensation, Message, Transaction], Awaitable[None]]


class AskedSteps:
    """The steps of one service that coordinators ask; `coordinators` names them by saga type."""

    def __init__(
        self, service: Service, coordinators: Mapping[str, str], *, forward: Forward, compensate: Compensate
    ) -> None:
        self._steps = {step.name: step for step in service.steps if step.saga.name in coordinators}
        undoable = (each for each in service.compensations if each.of.name not in service.final_steps)
        self._compensations = {each.of.name: each for each in undoable}
        self._forward = forward
        self._compensate = compensate
        undoing = [each for each in service.compensations if each.of in self]
        handlers: list[Step | Compensation] = [*self._steps.values(), *undoing]
        for handler in handlers:
            if handler.signature.is_join:
                fault = f"SAGA_ASKED_BY: {handler.name} takes several events, and a coordinator asks with one"
                raise SettingsError(f"{fault}: let it take one; the coordinator joins steps itself, by Parallel")

    def __contains__(self, step: Step) -> bool:
        return step.name in self._steps

    async def dispatch(self, address: Address, message: Message, tx: Transaction) -> None:
        """Run the step that the command asks for, or undo it."""
        step = self._steps[address.step]  # the decoder has checked that it is there
        compensation = self._compensations.get(step.name)
        if not is_of(step.saga, message):
            tx.work.kept.misdirected(message, f"{step.name} is a step of the saga {step.saga.name}")
        elif address.verb is Verb.UNDO and compensation is None:
            self._give_up(step, message, tx)
        elif address.verb is Verb.UNDO and compensation is not None:
            if trigger := _as_trigger(message, compensation.triggers, step.saga):
                await self._compensate(compensation, trigger, tx)
            else:
                tx.work.kept.misdirected(message, _wrong(compensation))
        elif trigger := _as_trigger(message, step.triggers, step.saga):
            await self._forward(step, trigger, tx)
        else:
            tx.work.kept.misdirected(message, _wrong(step))

    def _give_up(self, step: Step, message: Message, tx: Transaction) -> None:
        """Fence a step that nothing can undo, if it has not run; where it has, its success stands.

        One that can't refuse is left to run: nothing else could be replied.
        """
        transition = Transition(tx.work, step, message)
        decision = decide(Arrival.COMPENSATION, transition.stream.state)
        if decision is Decision.FENCE and step.is_refusable:
            transition.fenced(step.refusals[0])
        elif decision is Decision.DEFER:
            transition.defer()
        elif transition.stream.state in (StepState.COMPLETED, StepState.CONFIRMED):
            tx.work.after_commit.hit(step, Hit.LATE)
        else:
            transition.ignored()


def _as_trigger(message: Message, triggers: Sequence[type[Event]], saga: Saga) -> Message | None:
    """Return the command as a message with an event that the function takes; None where it has another one."""
    if type(message.event) in triggers:
        return message
    if not isinstance(message.event, AbortRequested):
        return None
    envelope = message.envelope
    event = saga.build(triggers[0], saga_id=envelope.saga_id, reason=message.event.reason)
    kind = type(event)
    envelope = replace(envelope, event_type=kind.__name__, version=kind.__version__)
    return Message(envelope, event, event.model_dump_json().encode(), message.exchange)


def _wrong(handler: Step | Compensation) -> str:
    return f"{handler.name} takes {' or '.join(event.__name__ for event in handler.triggers)}"
