"""The rules of a coordinator, each taken away by itself: variants of the model that `saga check` explores.

The model is `toolkit.checker.coordinated`; it decides by the toolkit's own `Course`. The last step of each plan here
has no compensation, and its success ends the saga; so does the step that announces the failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from toolkit.checker.coordinated import AskedServices, Following, Model
from toolkit.checker.decisions import ABORT, PlanMessage
from toolkit.checker.plan_states import PlanAction, State
from toolkit.checker.plans import AskedStep, CoordinatedPlan
from toolkit.orchestration.course import Course
from toolkit.protocol.commands import Outcome, Verb
from toolkit.protocol.fence import StepState as At


def _step(name: str) -> AskedStep:
    return AskedStep(name, name, f"{name} done", (f"{name} refused",), f"undo_{name}", f"{name} undone", True)


LAST = replace(_step("confirm"), success="Done", undoing=None, undone=None)
NOTICE = AskedStep("notice", "notice", "Failed")


def plan(*groups: tuple[str, ...]) -> CoordinatedPlan:
    """Return the plan that asks these steps, and then the last one."""
    asked = (*(tuple(map(_step, group)) for group in groups), (LAST,))
    return CoordinatedPlan("order", "desk", "Start", "Done", "Failed", asked, NOTICE)


#: Two steps in parallel, and two in a row; the last one can't be undone.
SHORT = plan(("pay", "insure"))
STRICT = plan(("reserve",), ("pay",))


class NoFence(AskedServices):
    """A step that is undone before it ran is not fenced."""

    fenced = None


class UndoesFinal(AskedServices):
    """A step without a compensation counts as undone, even where it completed."""

    def undone(self, state: State, step: AskedStep) -> Iterator[Following]:
        """Reply that the step is undone, and leave it as it is."""
        yield from super().undone(state, step)
        at = state.steps[self.plan.numbers[step.name]]
        if step.is_final and at is At.COMPLETED:
            yield self.moved(state, step, PlanAction.UNDONE, at, PlanMessage(step.name, Outcome.UNDONE, "undone"))


class StepsFenceAborts(AskedServices):
    """The asked steps fence themselves on an abort, too."""

    def unasked(self, state: State) -> Iterable[Following]:
        """Fence each planned step that has not run, once an abort is requested."""
        waiting = [step for step in self.plan.planned if state.steps[self.plan.numbers[step.name]] is None]
        if ABORT in self.messages.within(state.sent):
            for step in waiting:
                reply = PlanMessage(step.name, Outcome.REFUSED, step.refusals[0])
                yield self.moved(state, step, PlanAction.FENCED, At.FENCED, reply)


class EarlierOnly(Course):
    """Giving up on a step undoes the earlier steps only."""

    def gave_up(self, step: str) -> None:
        """Count the step as undone."""
        if self._states.get(step) is At.EXECUTING and step != self._failed_end:
            self._move(step, At.VOIDING)
            self.replied(step, Outcome.UNDONE)


class BelievesLate(Course):
    """A late success is believed."""

    def replied(self, step: str, outcome: Outcome) -> None:
        """Take a late success for one that nothing can undo."""
        is_late = self._states.get(step) is At.VOIDING and outcome is Outcome.COMPLETED
        super().replied(step, Outcome.FINAL if is_late else outcome)


class AllAtOnce(Course):
    """Everything is undone at once."""

    def _go_back(self) -> None:
        for group in self._groups:
            self._move_all(self._at(At.COMPLETED, group), At.COMPENSATING, Verb.UNDO)
        super()._go_back()


class DeafToLateRefusal(Course):
    """A late refusal does not count as undone."""

    def replied(self, step: str, outcome: Outcome) -> None:
        """Ignore it."""
        if self._states.get(step) is not At.VOIDING or outcome is not Outcome.REFUSED:
            super().replied(step, outcome)


class DisbelievesFinal(Course):
    """A late success of a step that nothing can undo is not believed."""

    def replied(self, step: str, outcome: Outcome) -> None:
        """Ignore it."""
        if self._states.get(step) is not At.VOIDING or outcome is not Outcome.FINAL:
            super().replied(step, outcome)


def side_by_side(asked: CoordinatedPlan) -> Model:
    """Return the model in which two replicas take the replies of parallel steps without one position for both."""
    model = Model(asked, replicas=2)
    model.coordinator.is_shared = False
    return model


class Watched(Course):
    """The rules themselves; `transitions` are those that the coordinator's streams made."""

    transitions: set[tuple[At | None, At]] = set()  # noqa: RUF012 -- one for all courses of one test

    def _move(self, step: str, to: At, verb: Verb | None = None) -> None:
        self.transitions.add((self._states.get(step), to))
        super()._move(step, to, verb)
