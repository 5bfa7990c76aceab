"""A coordinated saga's counterexample in plain words: one sentence for each move that changes something."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from toolkit.checker.decisions import ABORT, PlanDecision, PlanMessage
from toolkit.checker.plan_explorer import PlanCounterexample
from toolkit.checker.plan_states import PlanAction, PlanMove
from toolkit.checker.plans import CoordinatedPlan
from toolkit.protocol.commands import Verb
from toolkit.protocol.fence import StepState

_SENTENCES = {
    PlanAction.COMPLETES: "{step} completes",
    PlanAction.REFUSES: "{step} refuses with {emits}",
    PlanAction.UNDONE: "{undoing} undoes {step}",
    PlanAction.FENCED: "{step} is undone before it has run, and emits {emits}",
    PlanAction.CONFIRMS: "{coordinator} learns that the saga has completed",
    PlanAction.ABORT: "an abort is requested",
    PlanAction.DEPLOY: "the new release is deployed",
}


def plan_story_of(plan: CoordinatedPlan, counterexample: PlanCounterexample) -> tuple[str, ...]:
    """Return the sentences."""
    return tuple(_sentence(plan, move) for move in counterexample.story if move.action is not PlanAction.IDLE)


def _sentence(plan: CoordinatedPlan, move: PlanMove) -> str:
    if move.decision and move.received:
        text = _decided(plan, move.decision, move.received)
        return f"another replica reads {_received(move.reads)}, and {text} before it commits" if move.reads else text
    step = next((each for each in plan.steps if each.name == move.step), None)
    undoing = step.undoing if step else None
    return _SENTENCES[move.action].format(
        step=move.step, emits=move.emits, undoing=undoing, coordinator=plan.coordinator
    )


def _decided(plan: CoordinatedPlan, decision: PlanDecision, received: PlanMessage) -> str:
    on = "on the abort, " if received == ABORT else ""
    done = [*_clauses(decision, received)] or [f"takes {_received(received)}"]
    return f"{on}{plan.coordinator} {' and '.join(done)}"


def _clauses(decision: PlanDecision, received: PlanMessage) -> Iterator[str]:
    if decision.is_kept:
        yield f"can't end the saga by {decision.emits}, an event of another service"
        return
    asked = [move.step for move in decision.moves if move.verb is Verb.ASK]
    given_up = [move.step for move in decision.moves if move.to is StepState.VOIDING]
    undone = [move.step for move in decision.moves if move.to is StepState.COMPENSATING]
    if given_up:
        yield f"gives {_and(given_up)} up{'' if received.outcome or received == ABORT else ' when the time is up'}"
    if undone:
        yield f"has {_and(undone)} undone"
    if asked:
        yield f"asks {_and(asked)}{f' with {decision.untaken}' if decision.untaken else ''}"
    if decision.emits:
        yield f"ends the saga by {decision.emits}"


def _received(received: PlanMessage | None) -> str:
    return "the abort" if received == ABORT else f"the reply of {received.name}" if received else ""


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)
