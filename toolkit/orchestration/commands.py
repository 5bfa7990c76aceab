"""The events that a coordinator's commands carry, and the event by which it ends a saga itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.declaration.encoding import encode
from toolkit.declaration.events import AbortRequested, Event, SagaState
from toolkit.errors import StepError
from toolkit.messaging.envelope import Message
from toolkit.orchestration.course import Move
from toolkit.orchestration.orchestrator import Received, SagaOrchestrator, SagaStep
from toolkit.orchestration.plan import Plan
from toolkit.protocol.commands import Outcome, Verb


@dataclass(frozen=True, slots=True)
class Command:
    """A command, its event, and that as JSON."""

    verb: Verb
    event: Event
    body: bytes


class Commands:
    """Builds the commands that follow from one message.

    - `received`: each step's success, and by the coordinator's own name the starting event.
    - `reason`: why the saga fails, if it does.
    """

    def __init__(
        self,
        orchestrator: SagaOrchestrator,
        plan: Plan,
        message: Message,
        received: Mapping[str, Event],
        reason: str,
    ) -> None:
        self.reason = reason
        self._orchestrator = orchestrator
        self._plan = plan
        self._message = message
        self._received = received

    def of(self, move: Move, *, most: int) -> Command | None:
        """Return the command that goes out with a move; its event has at most so many bytes.

        Raises:
            StepError: the event is larger, or belongs to another saga.
            Exception: the author's function raised it.
        """
        if move.verb is None:
            return None
        event = self._asking(move.step) if move.verb is Verb.ASK else self._undoing(move.step)
        if event is self._message.event:
            return Command(move.verb, event, self._message.body)  # with the fields that this release does not know
        envelope = self._message.envelope
        return Command(
            move.verb, event, encode(event, saga=self._orchestrator.saga, saga_id=envelope.saga_id, most=most)
        )

    def end(self, end: SagaState, *, service: str) -> Event | None:
        """Return the event by which the coordinator ends the saga; None where its last step has ended it.

        Raises:
            StepError: the event is another service's: the last step must emit it.
        """
        saga = self._orchestrator.saga
        kind = saga.completes_with if end is SagaState.COMPLETED else saga.fails_with
        if type(self._message.event) is kind:
            return None
        if kind.__owner__ != service:
            raise StepError(
                f"the last step has not emitted {kind.__name__}, which is {kind.__owner__}'s to emit: "
                f"ask its step last, or declare {kind.__name__} with owner={service!r}"
            )
        if end is SagaState.COMPLETED:
            return self._orchestrator.complete(Received(self._received.values()))
        return saga.build(kind, saga_id=self._message.envelope.saga_id, reason=self.reason)

    def _asking(self, name: str) -> Event:
        """Return the event that a step is asked with: built by its action, else the success of the step before."""
        if action := self._step(name).action:
            return action(Received(self._received.values()))
        if self._plan.failed_end and name == self._plan.failed_end.name:
            return self._failure()
        return self._received[self._plan.before(name) or self._orchestrator.name]

    def _failure(self) -> Event:
        """Return the event that the failed end takes: the refusal, or that of the step which was undone last."""
        reply = self._message.envelope.reply
        is_back = reply is not None and reply.outcome in (Outcome.REFUSED, Outcome.UNDONE)
        return self._message.event if is_back else self._abort()

    def _undoing(self, name: str) -> Event:
        if compensation := self._step(name).compensation:
            return compensation(Received(self._received.values()))
        return self._abort()

    def _abort(self) -> Event:
        """Return the event from which the step's service builds the one that its function takes."""
        saga_type, saga_id = self._message.envelope.saga
        return AbortRequested(saga_type=saga_type, saga_id=saga_id, reason=self.reason)

    def _step(self, name: str) -> SagaStep:
        """Return a step as this release declares it; a plan may hold one that it declares no more."""
        failed_end = self._orchestrator.failed_end
        if failed_end and failed_end.name == name:
            return failed_end
        data = self._received.get(self._orchestrator.name)
        groups = self._orchestrator.groups_for(data) if data else []
        return next((step for group in groups for step in group if step.name == name), SagaStep(name))
