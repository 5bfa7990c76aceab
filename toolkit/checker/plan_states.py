"""The states of a coordinated saga, and the moves that lead from one to the next.

A message is forgotten once it can change nothing any more, so that a state has the messages that still count. Streams
of the steps are not confirmed: what may undo a step after its saga completed is a violation already.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from toolkit.checker.decisions import ABORT, START, PlanDecision, PlanMessage, Streams
from toolkit.checker.plans import CoordinatedPlan
from toolkit.protocol.commands import Outcome, Verb
from toolkit.protocol.fence import SagaState
from toolkit.protocol.fence import StepState as At


class PlanAction(StrEnum):
    """What one move does."""

    COMPLETES = "completes"
    REFUSES = "refuses"
    UNDONE = "undone"
    FENCED = "fenced"
    DECIDES = "decides"
    """The coordinator takes a message."""
    CONFIRMS = "confirms"
    """The coordinator learns that the saga has completed."""
    ABORT = "abort"
    """An abort is requested."""
    IDLE = "idle"
    """A message changes nothing."""
    DEPLOY = "deploy"
    """A new release begins, where a change is explored."""


class PlanMove(NamedTuple):
    """One move: what a step does, with the event that it emits, or what the coordinator decides on what it received.

    `reads`: the message that another replica of the coordinator reads before this move, and takes after it.
    """

    action: PlanAction
    step: str = ""
    emits: str = ""
    received: PlanMessage | None = None
    decision: PlanDecision | None = None
    reads: PlanMessage | None = None


class Command(NamedTuple):
    """A command to a step."""

    verb: Verb
    step: str


class Slow(NamedTuple):
    """A transaction of another replica that has read, and not committed yet."""

    received: PlanMessage
    desk: Streams
    is_begun: bool


class State(NamedTuple):
    """Everything at one moment.

    - `steps`, `desk`: the steps' own streams, and the coordinator's.
    - `sent`: the messages that may still change something, a bit for each; those that are `taken` need not come again.
    - `ends`: the events that have ended the saga; `end` is how the coordinator has seen it end.
    - `is_changed`: a new release is deployed, where a change is explored.
    """

    steps: Streams
    desk: Streams
    sent: int
    taken: int = 0
    ends: tuple[str, ...] = ()
    is_begun: bool = False
    end: SagaState | None = None
    slow: Slow | None = None
    is_changed: bool = False


#: A move, the state that it leads to, and whether it has to happen at some time.
Happening = tuple[PlanMove, State, bool]


class Messages:
    """The messages of one plan, each with its bit."""

    def __init__(self, plan: CoordinatedPlan) -> None:
        self._plan = plan
        self._bits: dict[Command | PlanMessage, int] = {}
        self._known: list[Command | PlanMessage] = []

    def bit(self, message: Command | PlanMessage) -> int:
        """Return a message's bit."""
        if message not in self._bits:
            self._bits[message] = 1 << len(self._known)
            self._known.append(message)
        return self._bits[message]

    def within(self, mask: int) -> Iterator[Command | PlanMessage]:
        """Yield the messages of these bits."""
        while mask:
            yield self._known[(mask & -mask).bit_length() - 1]
            mask &= mask - 1

    def settled(self, state: State) -> State:
        """Return the state without the messages that can change nothing any more."""
        sent = sum(self._bits[message] for message in self.within(state.sent) if self._counts(message, state))
        return state._replace(sent=sent, taken=state.taken & sent)

    def _counts(self, message: Command | PlanMessage, state: State) -> bool:
        if isinstance(message, Command):
            at = state.steps[self._plan.numbers[message.step]]
            return at is None or (at is At.COMPLETED and message.verb is Verb.UNDO)
        if state.end or message in (START, ABORT):
            return state.end is None and not (message == START and state.is_begun)
        at = state.desk[self._plan.numbers[message.name]]
        if at in (At.COMPLETED, At.COMPENSATING):
            return message.outcome is Outcome.UNDONE
        return at not in (At.FAILED, At.COMPENSATED, At.CONFIRMED)


def with_state(streams: Streams, number: int, to: At | None) -> Streams:
    """Return the streams with one in another state."""
    return (*streams[:number], to, *streams[number + 1 :])
