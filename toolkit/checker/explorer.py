"""Explores every interleaving of one saga, breadth first, so that the first way to a violation is a shortest one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from toolkit.checker.graph import SagaGraph
from toolkit.checker.moves import Compiled, Invariant, Move, Moves

#: States of one saga. A million takes 5 to 10 seconds of a CPU, and 150 MB; seven parallel branches have a fifth.
MOST_STATES = 1_000_000


@dataclass(frozen=True, slots=True)
class StoryMove:
    """One move of a counterexample, with the events that led to it."""

    move: Move
    on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A shortest way to a violation, and the state that it leads to."""

    invariant: Invariant
    story: tuple[StoryMove, ...]
    sent: tuple[str, ...]
    state: int


@dataclass(slots=True)
class Exploration:
    """What exploring a saga found; without counterexamples it is a proof, but only if it is `complete`."""

    graph: SagaGraph
    moves: Moves
    states: int = 0
    at_rest: int = 0
    is_complete: bool = True
    counterexamples: list[Counterexample] = field(default_factory=list)

    @property
    def is_proved(self) -> bool:
        """Whether no interleaving breaks an invariant."""
        return self.is_complete and not self.counterexamples


def explore(graph: SagaGraph, *, most_states: int = MOST_STATES) -> Exploration:
    """Visit every state that the saga can reach, the nearest first; what follows from a violation is left out."""
    return explore_moves(Moves(graph), most_states=most_states)


def explore_moves(moves: Moves, *, most_states: int = MOST_STATES) -> Exploration:
    """Visit every state that these moves lead to, as `explore` does.

    A change is deployed in each state of a saga in flight: one that has ended, or stands still for ever, is none.
    """
    came_from: dict[int, int | None] = {moves.start: None}
    waiting = [moves.start]
    found: dict[Invariant, tuple[int, Move | None]] = {}
    result = Exploration(moves.graph, moves)
    while waiting and result.is_complete:
        following: list[int] = []
        for state in waiting:
            if len(came_from) > most_states:  # a level of many branches may be far larger than the last one
                result.is_complete = False
                break
            is_at_rest = _expand(moves, moves.compiled, state, came_from, following, found)
            is_stuck = is_at_rest and not moves.has_ended(state)
            if moves.deployments and (moves.counts(state) or not (is_stuck or moves.has_ended(state))):
                is_at_rest = _expand(moves, moves.deployments, state, came_from, following, found) and is_at_rest
            result.at_rest += is_at_rest
            if is_at_rest and is_stuck and moves.counts(state):
                found.setdefault(Invariant.AN_END, (state, None))
        waiting = following
    result.states = len(came_from)
    result.counterexamples = [_counterexample(moves, came_from, each, *found[each]) for each in found]
    return result


def _expand(
    moves: Moves,
    compiled: Iterable[Compiled],
    state: int,
    came_from: dict[int, int | None],
    following: list[int],
    found: dict[Invariant, tuple[int, Move | None]],
) -> bool:
    """Add the states that follow from one; return whether none of these moves has to happen."""
    is_at_rest = True
    for absent, present, slots, kept, sets, move in compiled:
        if state & absent or state & present != present:
            continue
        for slot in slots:
            if not state & slot:
                break
        else:
            after = state & kept | sets
            is_at_rest = is_at_rest and move.is_voluntary
            if after in came_from:
                continue
            if violation := moves.violation(state, move, after):
                if moves.counts(after):
                    found.setdefault(violation, (state, move))
            else:
                came_from[after] = state
                following.append(after)
    return is_at_rest


def _counterexample(
    moves: Moves, came_from: dict[int, int | None], invariant: Invariant, state: int, last: Move | None
) -> Counterexample:
    way = [last] if last else []
    end = last.after(state) if last else state
    while (before := came_from[state]) is not None:
        way.append(_between(moves, before, state))
        state = before
    sent = [moves.starts_with]
    story = []
    for move in reversed(way):
        on = tuple(_first(sent, slot) for slot in move.consumes if not slot.isdisjoint(sent))
        story.append(StoryMove(move, on))
        if move.emits and move.emits not in sent:
            sent.append(move.emits)
    return Counterexample(invariant, tuple(story), tuple(sent), end)


def _between(moves: Moves, before: int, after: int) -> Move:
    return next(move for move in moves.all if move.is_possible(before) and move.after(before) == after)


def _first(sent: Sequence[str], slot: frozenset[str]) -> str:
    return next(event for event in sent if event in slot)
