"""Whether coordinated sagas in flight end right under a change: the plan of each stands in the coordinator's log.

So a saga that began under the old release is asked by the old plan, of services that run the new release. A command or
a reply that the new release may not read need not have an effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from toolkit.checker.coordinated import Model
from toolkit.checker.moves import Invariant
from toolkit.checker.plan_diagnosis import plan_finding_of
from toolkit.checker.plan_explorer import PlanCounterexample, PlanExploration, explore_plan
from toolkit.checker.plan_rules import PlanRules
from toolkit.checker.plan_states import Happening, Messages, PlanAction, PlanMove, State
from toolkit.checker.plan_stories import plan_story_of
from toolkit.checker.plans import AskedStep, CoordinatedPlan
from toolkit.compatibility.cures import cure_of
from toolkit.compatibility.findings import DRAINED, ChangeFinding
from toolkit.compatibility.readings import Fault
from toolkit.compatibility.releases import Change, Release, Which
from toolkit.declaration.plan_contract import PlanContract
from toolkit.protocol.fence import StepState as At

_FORWARD = (PlanAction.COMPLETES, PlanAction.REFUSES)
#: What waits for the step of another service.
_WAITING = (At.EXECUTING, At.VOIDING, At.COMPENSATING)


class ChangedPlan:
    """A plan of the old release, and what its steps are in the new one."""

    def __init__(self, change: Change, coordinator: str, old: CoordinatedPlan) -> None:
        self.change = change
        self.old = old
        steps = {each.place: each for each in change.new.graph.steps}
        self.gone = {each.name for each in old.steps if each.place not in steps}
        self.new = _with_steps(old, change.new)
        self.asked = {each.name: faults for each in old.steps if (faults := self._asked_faults(each))}
        self.undone = {each.name: faults for each in old.steps if (faults := self._original_faults(each))}
        events = {event for each in old.steps for event in (each.success, *each.refusals, each.undone) if event}
        self.replies = {each: faults for each in events
                        if (faults := change.faults(each, Which.OLD, coordinator, Which.NEW))}  # fmt: skip

    def trouble(self, step: AskedStep) -> tuple[str, str] | None:
        """Return why a step may not do any more what it is asked, and the cure; None if it does."""
        if step.name in self.gone:
            what = f"{step.service} has no {step.name} any more"
            return what, f"Keep {step.name} in {step.service} {DRAINED}"
        new = next(each for each in self.new.steps if each.name == step.name)
        if step.undone and new.undone is None:
            return f"{step.name} has no compensation any more", f"Keep {step.undoing} in {step.service} {DRAINED}"
        for name, fault in self._faults(step):
            text = f"{name} is not read as the old release sent it: {fault}"
            sent = self.change.sent(name, Which.OLD)
            return text, cure_of(fault, name, sent) if sent else f"Keep {name} as it was"
        return None

    def _faults(self, step: AskedStep) -> Iterator[tuple[str, Fault]]:
        former = self.change.old.steps.get(step.place)
        for fault in self.asked.get(step.name, ()):
            yield next(iter(event for slot in former.slots for event in slot)) if former else step.name, fault
        for fault in self.undone.get(step.name, ()):
            yield step.success, fault
        for event in (step.success, *step.refusals, step.undone or ""):
            yield from ((event, fault) for fault in self.replies.get(event, ()))

    def _asked_faults(self, step: AskedStep) -> tuple[Fault, ...]:
        former = self.change.old.steps.get(step.place)
        taken = {event for slot in former.slots for event in slot} if former and step.name not in self.gone else set()
        return tuple(
            fault for event in sorted(taken) for fault in self.change.faults(event, Which.OLD, step.service, Which.NEW)
        )

    def _original_faults(self, step: AskedStep) -> tuple[Fault, ...]:
        former = self.change.old.steps.get(step.place)
        return self.change.original_faults(former) if former and step.undone else ()


class ChangedModel(Model):
    """All moves of a coordinated saga that begins in the old release, and goes on by its plan in the new one."""

    def __init__(self, changed: ChangedPlan) -> None:
        messages = Messages(changed.old)
        super().__init__(changed.new, replicas=2, messages=messages)
        self._changed = changed
        self._former = Model(changed.old, replicas=2, messages=messages)

    def moves(self, state: State) -> Iterator[Happening]:
        """Yield all that can happen next; the change is deployed at any moment before the saga has ended."""
        if state.is_changed:
            yield from (self._in_new(*each) for each in super().moves(state) if each[0].step not in self._changed.gone)
            return
        yield from self._former.moves(state)
        if not self._former.has_ended(state):
            yield PlanMove(PlanAction.DEPLOY), state._replace(is_changed=True), True

    def violation(self, before: State, after: State) -> Invariant | None:
        """Return the invariant that a move breaks, by the release that the state is in; a deployment breaks none."""
        if before.is_changed is not after.is_changed:
            return None
        return super().violation(before, after) if after.is_changed else self._former.violation(before, after)

    def counts(self, state: State) -> bool:
        """Whether the change is deployed."""
        return state.is_changed

    def _in_new(self, move: PlanMove, after: State, is_forced: bool) -> Happening:
        """Return what happens under the new release: a message that may not be read forces nothing.

        Where a command is not read, the coordinator relies on its own timer instead.
        """
        changed, received = self._changed, move.received
        if received and received.outcome is None and received.name in {*changed.asked, *changed.gone}:
            return move, after, True
        is_doubtful = (
            (move.action in _FORWARD and move.step in changed.asked)
            or (move.action is PlanAction.UNDONE and move.step in changed.undone)
            or (received is not None and received.event in changed.replies)
        )
        return move, after, is_forced and not is_doubtful


def explore_plans(change: Change, coordinator: str, *, most_states: int) -> list[tuple[ChangedPlan, PlanExploration]]:
    """Explore each plan of the old release that is one; the others are the old release's own fault."""
    contract = change.old.contracts.get(coordinator)
    found = []
    for plan in contract.plans.get(change.old.saga.name, ()) if contract else ():
        planned = _planned(change.old, coordinator, plan)
        if planned:
            changed = ChangedPlan(change, coordinator, planned)
            found.append((changed, explore_plan(ChangedModel(changed), most_states=most_states)))
    return found


def finding_of_plan(changed: ChangedPlan, exploration: PlanExploration, found: PlanCounterexample) -> ChangeFinding:
    """Return what a counterexample shows, and the declaration to change."""
    plan = changed.new
    told = plan_finding_of(PlanExploration(plan), found)
    function, service, message, cure = told.function, told.service, f"in a saga in flight {told.message}", told.cure
    steps = zip(changed.old.steps, found.state.desk, strict=True)
    for step, trouble in ((each, changed.trouble(each)) for each, at in steps if at in _WAITING):
        if trouble and found.invariant is Invariant.AN_END:
            function, service, cure = step.name, step.service, trouble[1]
            message = f"a saga that waits for {step.place}, asked by {plan.coordinator}, can never end: {trouble[0]}"
    return ChangeFinding(
        rule=found.invariant.value,
        saga=plan.saga,
        service=service,
        function=function,
        message=message,
        cure=cure,
        story=plan_story_of(plan, found),
    )


def _planned(release: Release, coordinator: str, plan: PlanContract) -> CoordinatedPlan | None:
    return PlanRules(release.choreography, release.saga, coordinator, plan).planned()


def _with_steps(plan: CoordinatedPlan, release: Release) -> CoordinatedPlan:
    """Return the plan with its steps as a release declares them; those that it does not have stay as they were."""
    end = plan.failed_end
    declared = release.steps.get(end.place) if end else None
    takes = frozenset(event for slot in declared.slots for event in slot) if declared else plan.end_takes
    return replace(
        plan,
        groups=tuple(tuple(_as_declared(step, release) for step in group) for group in plan.groups),
        failed_end=_as_declared(end, release) if end else None,
        end_takes=None if plan.end_takes is None else takes,
    )


def _as_declared(step: AskedStep, release: Release) -> AskedStep:
    declared = release.steps.get(step.place)
    if declared is None:
        return step
    undoing = None if declared.success in release.graph.ends else declared.undoing
    return replace(
        step,
        success=declared.success,
        refusals=declared.refusals,
        undoing=undoing.name if undoing else None,
        undone=undoing.event if undoing else None,
    )
