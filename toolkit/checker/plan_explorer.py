"""Explores every interleaving of a coordinated saga, breadth first: the first way to a violation is a shortest."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.checker.coordinated import Model
from toolkit.checker.moves import Invariant
from toolkit.checker.plan_states import PlanMove, State
from toolkit.checker.plans import CoordinatedPlan

#: By state, the one before on a shortest way to it, and the move between; None for the first one.
Ways = dict[State, tuple[State, PlanMove] | None]


@dataclass(frozen=True, slots=True)
class PlanCounterexample:
    """A shortest way to a violation, and the state that it leads to."""

    invariant: Invariant
    story: tuple[PlanMove, ...]
    state: State


@dataclass(slots=True)
class PlanExploration:
    """What exploring a plan found; without counterexamples it is a proof, but only if it is `complete`."""

    plan: CoordinatedPlan
    states: int = 0
    at_rest: int = 0
    is_complete: bool = True
    counterexamples: list[PlanCounterexample] = field(default_factory=list)

    @property
    def is_proved(self) -> bool:
        """Whether no interleaving breaks an invariant."""
        return self.is_complete and not self.counterexamples


def explore_plan(model: Model, *, most_states: int) -> PlanExploration:
    """Visit every state that the saga can reach, the nearest first; what follows from a violation is left out."""
    ways: Ways = {model.first: None}
    waiting, result = [model.first], PlanExploration(model.plan)
    found: dict[Invariant, PlanCounterexample] = {}
    while waiting and result.is_complete:
        following: list[State] = []
        for state in waiting:
            if len(ways) > most_states:
                result.is_complete = False
                break
            is_at_rest = _expand(model, state, ways, following, found)
            result.at_rest += is_at_rest
            is_stuck = is_at_rest and model.counts(state) and not model.has_ended(state)
            if is_stuck and Invariant.AN_END not in found:
                found[Invariant.AN_END] = PlanCounterexample(Invariant.AN_END, tuple(_way(ways, state)), state)
        waiting = following
    result.states = len(ways)
    result.counterexamples = list(found.values())
    return result


def _expand(
    model: Model, state: State, ways: Ways, following: list[State], found: dict[Invariant, PlanCounterexample]
) -> bool:
    """Add the states that follow from one; return whether it is at rest."""
    is_at_rest = True
    for move, after, is_forced in model.moves(state):
        if after == state:
            continue
        is_at_rest = is_at_rest and not is_forced
        if after in ways:
            continue
        if violation := model.violation(state, after):
            if model.counts(after) and violation not in found:
                found[violation] = PlanCounterexample(violation, (*_way(ways, state), move), after)
        else:
            ways[after] = state, move
            following.append(after)
    return is_at_rest


def _way(ways: Ways, state: State) -> list[PlanMove]:
    way = []
    while step := ways[state]:
        state, move = step
        way.append(move)
    return way[::-1]
