"""The coordinator's own streams: one for the saga, with its plan, and one for each step that it asks."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from toolkit.declaration.encoding import Original
from toolkit.declaration.events import Event, Saga, SagaState
from toolkit.declaration.participant import Step
from toolkit.declaration.retry_policy import RetryPolicy
from toolkit.declaration.signature import Signature
from toolkit.messaging.envelope import Envelope, Message
from toolkit.orchestration.commands import Command
from toolkit.orchestration.plan import Plan
from toolkit.persistence import log_entries
from toolkit.protocol.commands import Address, Verb
from toolkit.protocol.fence import StepState
from toolkit.runtime.transitions import Transition

if TYPE_CHECKING:
    from toolkit.runtime.unit_of_work import UnitOfWork

#: The key of the plan beside the fields of the starting event, in the first entry of the coordinator's own stream.
_PLAN = "saga-plan"


async def _runs_elsewhere() -> Event:
    raise NotImplementedError("another service runs this step")


def step_of(saga: Saga, name: str, *, service: str, starts: bool = False) -> Step:
    """Return a stand-in for a step of another service; the stream that `starts` the saga takes its starting event."""
    signature = Signature(
        slots={}, triggers=(saga.starts_with,) if starts else (), emits=(), event="", original=None, originals=(),
        original_may_be_none=False, session=None, key=None, resources={},
    )  # fmt: skip
    return Step(
        name=name, participant=service, saga=saga, function=_runs_elsewhere, signature=signature, success=Event,
        refusals=(), timeout=None, remind=None, retry=RetryPolicy(), external=True,
    )  # fmt: skip


class CoordinatedStep(Transition):
    """A stream of the coordinator, and the entries that the message adds to it."""

    __slots__ = ("_verb",)
    _is_asked = True

    def __init__(self, work: UnitOfWork, step: Step, message: Message) -> None:
        super().__init__(work, step, message)
        self._verb: Verb | None = None

    def kept(self) -> Original | None:
        """Return the success that the step has replied, if it has; of the saga's own stream, the starting event."""
        original, state = self.stream.original, self.stream.state
        if not self.step.triggers:
            # Before its success the log keeps the command.
            return None if state in (StepState.EXECUTING, StepState.VOIDING, StepState.FAILED) else original
        if original is None or (body := json.loads(original.body)).pop(_PLAN, None) is None:
            return None
        return replace(original, body=json.dumps(body))

    # -- the saga's own stream ---------------------------------------------------------------------------------

    def begun(self, plan: Plan) -> None:
        """The saga begins: keep its starting event, and its plan.

        With parallel steps it gathers their replies: each takes the next position, so of two that come to two replicas
        at once, one is taken again and sees the other.
        """
        body = json.dumps(json.loads(self.message.body) | {_PLAN: json.loads(plan.text())})
        to = StepState.GATHERING if plan.is_parallel else StepState.EXECUTING
        self._move(to, SagaState.STARTED, made_by=_keeping(type(self.message.event), body))

    def plan(self) -> Plan | None:
        """Return the saga's plan; None where it was aborted before it began."""
        original = self.stream.original
        found = json.loads(original.body).get(_PLAN) if original else None
        return Plan.read(json.dumps(found)) if found else None

    def ended(self, to: StepState, event: Event) -> None:
        """The coordinator ends the saga itself, with this event."""
        state = self.step.saga.state_after(type(event))
        self._move(to, state, emitted=event)
        self._work.ends.announce(self.message.envelope.saga, state)
        self._work.after_commit.ended(self.message.envelope, state, at=self._work.origin.now)

    # -- a step's stream ---------------------------------------------------------------------------------------

    def commanded(self, to: StepState, command: Command, state: SagaState, *, reason: str | None) -> None:
        """Send the step a command."""
        self._verb = command.verb
        self._move(to, state, emitted=command.event, body=command.body, error=reason)

    def set_timer(self, timeout: timedelta) -> None:
        """Return to the step when its reply is due."""
        deadline = self._work.origin.now + timeout
        self._work.outgoing.set_timer(self.message.as_timer(self.step.name), self.key, deadline)

    def cancel_timer(self) -> None:
        """Let the step's timer be: it has replied, or was given up."""
        self._work.outgoing.cancel_timer(self.key)

    def done(self, state: SagaState) -> None:
        """The step has replied its success: keep it."""
        self._move(StepState.COMPLETED, state, made_by=_keeping(type(self.message.event), self.message.body.decode()))

    def moved(self, to: StepState, state: SagaState, *, error: str | None = None) -> None:
        """The step is refused, undone or confirmed; the saga's own stream is at its end."""
        self._move(to, state, error=error)

    def _address(self, envelope: Envelope, to: StepState, emitted: Event) -> None:
        if self._verb:
            envelope.address = Address(self._work.origin.service, self._verb, self.step.name)


def _keeping(kind: type[Event], body: str) -> Any:
    """Return what makes an entry that keeps an event which the coordinator does not emit: it has no id there."""
    facts: dict[str, Any] = {"emitted_type": kind.__name__, "emitted_version": kind.__version__, "emitted_body": body}
    return partial(log_entries.move, **facts)
