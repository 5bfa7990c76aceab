"""From a counterexample of a plan to its cure: which declaration to change, and how.

A cure is the smallest change that rules out this one story. Another story may remain, so the plan is explored again.
"""

from __future__ import annotations

from collections.abc import Callable

from toolkit.checker.findings import Cure, Finding
from toolkit.checker.moves import Invariant
from toolkit.checker.plan_explorer import PlanCounterexample, PlanExploration
from toolkit.checker.plan_states import PlanAction, PlanMove
from toolkit.checker.plan_stories import plan_story_of
from toolkit.checker.plans import AskedStep, CoordinatedPlan
from toolkit.protocol.fence import SagaState, StepState

_STEPS = "define_steps"


class _Case:
    """A counterexample with its plan."""

    def __init__(self, plan: CoordinatedPlan, found: PlanCounterexample) -> None:
        self.plan = plan
        self.story = found.story
        self.state = found.state

    @property
    def enders(self) -> list[PlanMove]:
        """The moves that ended the saga."""
        return [move for move in self.story if self.end_of(move)]

    def end_of(self, move: PlanMove) -> str | None:
        """Return the event by which a move ended the saga, if it did."""
        if move.decision:
            return None if move.decision.is_kept else move.decision.emits
        ends = (self.plan.completes_with, self.plan.fails_with)
        return move.emits if move.action is PlanAction.COMPLETES and move.emits in ends else None

    def place_of(self, move: PlanMove) -> str:
        """Return who made a move: a step, or the coordinator."""
        return self.step(move.step).place if move.step else self.plan.coordinator

    def step(self, name: str) -> AskedStep:
        """Return a step by its name."""
        return self.plan.steps[self.plan.numbers[name]]

    @property
    def failing(self) -> AskedStep | None:
        """The first step that refused, or was undone before it ran."""
        found = (move.step for move in self.story if move.action in (PlanAction.REFUSES, PlanAction.FENCED))
        return next((self.step(name) for name in found), None)

    @property
    def standing(self) -> AskedStep | None:
        """The first step of the plan that stands."""
        states = zip(self.plan.planned, self.state.steps, strict=False)
        return next((step for step, at in states if at is StepState.COMPLETED), None)

    def in_steps(self, message: str, text: str) -> Cure:
        """Return a cure that changes the plan itself."""
        return Cure(_STEPS, self.plan.coordinator, message, text)


def plan_finding_of(exploration: PlanExploration, found: PlanCounterexample) -> Finding:
    """Return what a counterexample shows, and how to change the declarations."""
    plan = exploration.plan
    case = _Case(plan, found)
    cure = _CURES.get(found.invariant, _unexplained)(case) or _unexplained(case)
    return cure.finding(found.invariant.value, plan.saga, plan_story_of(plan, found))


def _left_standing(case: _Case) -> Cure | None:
    step, failing, ender = case.standing, case.failing, case.enders[-1]
    if step is None:
        return None
    message = f"{case.place_of(ender)} fails the saga by {case.plan.fails_with}, and {step.place} still stands"
    if not step.is_final:
        return _ended_early(case, ender, message)
    text = f"Give {step.name} a compensation: @….compensation(of={step.name})"
    if failing and failing.success != case.plan.completes_with:
        text = f"{text}, or let {_STEPS} ask it after {failing.name}"
    return Cure(step.name, step.service, message, text)


def _second_end(case: _Case) -> Cure | None:
    first, last = case.enders[0], case.enders[-1]
    one, other = case.end_of(first), case.end_of(last)
    again = "the saga again" if one == other else f"it by {other}"
    message = f"{case.place_of(first)} ends the saga by {one}, and then {case.place_of(last)} ends {again}"
    return _ended_early(case, first, message)


def _completed_in_part(case: _Case) -> Cure | None:
    plan, ender = case.plan, case.enders[0]
    over = (StepState.FAILED, StepState.FENCED, StepState.COMPENSATED)
    missing = next(step for step, at in zip(plan.planned, case.state.steps, strict=False) if at in over)
    fate = "has refused" if case.state.steps[plan.numbers[missing.name]] is StepState.FAILED else "took no effect"
    message = f"{case.place_of(ender)} completes the saga by {plan.completes_with}, although {missing.name} {fate}"
    return _ended_early(case, ender, message)


def _ended_early(case: _Case, ender: PlanMove, message: str) -> Cure | None:
    """Have the step that completes the saga asked last, and the one that fails it when all is undone."""
    plan, name, is_failed = case.plan, ender.step, case.end_of(ender) == case.plan.fails_with
    if plan.failed_end and name == plan.failed_end.name:
        text = f"Let {name} return {plan.fails_with}"
        return None if is_failed else Cure(name, plan.failed_end.service, message, text)
    if not name:
        return None
    if is_failed:
        return case.in_steps(message, f"Leave {name} out: name it as failed_end, which is asked once all is undone")
    return case.in_steps(message, f"Ask {name} last, and by itself: nothing can undo a saga that has completed")


def _no_end(case: _Case) -> Cure | None:
    plan, end = case.plan, case.plan.failed_end
    decided = [(move.decision, move.received) for move in case.story if move.decision and move.received]
    for decision, received in decided:
        if decision.untaken and end:
            message = f"{end.place} is asked with {decision.untaken}, which it does not take, so the saga does not end"
            text = f"Let {end.name} run on {decision.untaken}, too, or give failed_end an action"
            return Cure(end.name, end.service, message, text)
        if not decision.is_kept:
            continue
        if decision.end is SagaState.COMPLETED:
            event = plan.completes_with
            message = f"all steps are done, the last one has not emitted {event}, and {plan.coordinator} may not"
            text = f'Ask the step last that returns {event}, or declare {event} with owner="{plan.coordinator}"'
            return case.in_steps(message, text)
        if end and received.event in end.refusals:
            message = f"{end.place} refuses with {received.event}, and {plan.fails_with} is never emitted"
            text = f"Let {end.name} return {plan.fails_with} alone, and raise what may be tried again"
            return Cure(end.name, end.service, message, text)
        if end:
            message = f"{end.place} emits {received.event}, and {plan.fails_with} is never emitted"
            return Cure(end.name, end.service, message, f"Let {end.name} return {plan.fails_with}")
        message = f"all is undone, and {plan.coordinator} may not emit {plan.fails_with}"
        text = f"Name the step that returns {plan.fails_with}: failed_end = SagaStep(…)"
        return Cure("failed_end", plan.coordinator, message, text)
    return None


def _unexplained(case: _Case) -> Cure:
    """Return what is left where no declaration is at fault."""
    message = "the coordinator's own rules lead to this"
    return case.in_steps(message, "Report the story: it is a fault of the toolkit")


_CURES: dict[Invariant, Callable[[_Case], Cure | None]] = {
    Invariant.ONE_END: _second_end,
    Invariant.NOTHING_LOST: _completed_in_part,
    Invariant.NOTHING_LEFT: _left_standing,
    Invariant.AN_END: _no_end,
}
