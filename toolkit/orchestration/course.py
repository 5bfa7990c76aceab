"""The course of a coordinated saga: which steps are asked next, and which are undone, after each reply.

Pure rules, no I/O. Steps are asked group after group, and undone group after group in the reverse order, never all at
once. A step that does not answer in time is itself undone first: whether it ran is unknown, and its own service's fence
makes that safe. A refusal that comes late counts as undone; a late success does not count, except that of a step that
nothing can undo.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolkit.protocol.commands import Outcome, Verb
from toolkit.protocol.fence import SagaState, StepState

#: The states of the coordinator's own stream of a step after a reply; any other reply changes nothing.
_AFTER_REPLY: dict[tuple[StepState | None, Outcome], StepState] = {
    (StepState.EXECUTING, Outcome.COMPLETED): StepState.COMPLETED,
    (StepState.EXECUTING, Outcome.FINAL): StepState.COMPLETED,
    (StepState.EXECUTING, Outcome.REFUSED): StepState.FAILED,
    (StepState.EXECUTING, Outcome.UNDONE): StepState.FAILED,
    (StepState.VOIDING, Outcome.FINAL): StepState.COMPLETED,
    (StepState.VOIDING, Outcome.REFUSED): StepState.FAILED,
    (StepState.VOIDING, Outcome.UNDONE): StepState.FAILED,
    (StepState.COMPENSATING, Outcome.UNDONE): StepState.COMPENSATED,
}
_DONE = (StepState.COMPLETED, StepState.CONFIRMED)
#: A saga with such a step can only fail.
_BACK = (StepState.FAILED, StepState.COMPENSATING, StepState.COMPENSATED)
_IS_UNDONE = (StepState.VOIDING, StepState.COMPENSATING)

States = Mapping[str, StepState | None]


@dataclass(frozen=True, slots=True)
class Move:
    """The next state of a step's stream, and the command that goes out with it, if any."""

    step: str
    to: StepState
    verb: Verb | None = None


class Course:
    """One saga's course from the present states of its steps.

    - `moves`: what a message leads to, in order.
    - `end`: how the saga ends by it, if it does.
    """

    def __init__(self, groups: Sequence[Sequence[str]], states: States, *, failed_end: str | None = None) -> None:
        self._groups = groups
        self._failed_end = failed_end
        self._states = dict(states)
        self.moves: list[Move] = []
        self.end: SagaState | None = None

    @property
    def is_failing(self) -> bool:
        """Whether a step is undone, or is to be; one that can't be undone may let the saga go on."""
        return self._is_back() or any(self._states.get(step) is StepState.VOIDING for step in self._steps())

    def start(self) -> None:
        """Ask the first steps."""
        self._go_on()

    def replied(self, step: str, outcome: Outcome) -> None:
        """Take a step's reply."""
        after = _AFTER_REPLY.get((self._states.get(step), outcome))
        if after is None:
            return
        self._move(step, after)
        if after is StepState.COMPLETED and outcome is Outcome.FINAL and step != self._failed_end:
            self._move(step, StepState.CONFIRMED)
        self._go_on()

    def gave_up(self, step: str) -> None:
        """The step did not answer in time: undo it."""
        if self._states.get(step) is StepState.EXECUTING and step != self._failed_end:
            self._move(step, StepState.VOIDING, Verb.UNDO)

    def aborted(self) -> None:
        """Wait no longer for any step; without a step that was asked, go to the failed end."""
        if not any(self._states.values()):
            self._fail()
        for step in self._steps():
            self.gave_up(step)

    def _go_on(self) -> None:
        if self._is_back():
            self._go_back()
            return
        for group in self._groups:
            if not any(self._states.get(step) for step in group):
                self._move_all(group, StepState.EXECUTING, Verb.ASK)
            if not all(self._states.get(step) in _DONE for step in group):
                return
        self.end = SagaState.COMPLETED

    def _go_back(self) -> None:
        """Undo the last group of which something is left, or fail."""
        for group in reversed(self._groups):
            self._move_all(self._at(StepState.EXECUTING, group), StepState.VOIDING, Verb.UNDO)
            self._move_all(self._at(StepState.COMPLETED, group), StepState.COMPENSATING, Verb.UNDO)
            if any(self._states.get(step) in _IS_UNDONE for step in group):
                return
        self._fail()

    def _is_back(self) -> bool:
        has_begun_to_end = self._failed_end is not None and self._states.get(self._failed_end) is not None
        return has_begun_to_end or any(self._states.get(step) in _BACK for step in self._steps())

    def _fail(self) -> None:
        """Ask the step that announces the failure; without one, or once it has replied, the saga has failed."""
        if self._failed_end and self._states.get(self._failed_end) is None:
            self._move(self._failed_end, StepState.EXECUTING, Verb.ASK)
        elif self._failed_end is None or self._states.get(self._failed_end) is not StepState.EXECUTING:
            self.end = SagaState.FAILED

    def _steps(self) -> Iterator[str]:
        return (step for group in self._groups for step in group)

    def _at(self, state: StepState, group: Iterable[str]) -> list[str]:
        return [step for step in group if self._states.get(step) is state]

    def _move_all(self, steps: Iterable[str], to: StepState, verb: Verb) -> None:
        for step in steps:
            self._move(step, to, verb)

    def _move(self, step: str, to: StepState, verb: Verb | None = None) -> None:
        self._states[step] = to
        self.moves.append(Move(step, to, verb))
