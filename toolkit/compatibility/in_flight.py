"""Whether sagas in flight end right under a change: explored from each state that the old release can reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from toolkit.checker.explorer import Counterexample, Exploration, StoryMove, explore_moves
from toolkit.checker.graph import GraphStep
from toolkit.checker.moves import Action, Invariant, Move, Moves, compiled
from toolkit.checker.stories import story_of
from toolkit.compatibility.changed_moves import ChangedMoves, Rollout
from toolkit.compatibility.cures import cure_of
from toolkit.compatibility.findings import DRAINED, ChangeFinding, Level
from toolkit.compatibility.releases import Change, Which
from toolkit.compatibility.step_changes import changes_of, is_changed, shown

_BACK = (Action.UNDONE, Action.FENCED)
_REFUSING = (Action.REFUSES, Action.EXPIRES, Action.ABORTED)


def explore_change(change: Change, rollout: Rollout, *, most_states: int) -> Exploration:
    """Visit every state of a saga that begins under the old graph, with the change at any moment."""
    return explore_moves(ChangedMoves(change, rollout), most_states=most_states)


def ends_by_deadline(change: Change, rollout: Rollout, *, most_states: int) -> ChangeFinding | None:
    """Return a note where a saga in flight waits for what never comes, and only its deadline ends the wait.

    A saga that waits for a person does so in each release, and is no finding of a change.
    """
    alone = (Moves(change.old.graph), Moves(change.new.graph))
    found, *others = (
        [each for each in explore_moves(without_deadlines(moves), most_states=most_states).counterexamples
         if each.invariant is Invariant.AN_END]
        for moves in (ChangedMoves(change, rollout), *alone)
    )  # fmt: skip
    if not found or any(others):
        return None
    moves = ChangedMoves(change, rollout)
    service, function, message, cure = _no_end(_Case(moves, found[0]))
    message = message.replace("can never end", "ends only by its deadline")
    return ChangeFinding(
        rule="ends by deadline",
        saga=change.old.saga.name,
        service=service,
        function=function,
        message=message,
        cure=cure,
        story=story_of(found[0]),
        level=Level.NOTE,
    )


def without_deadlines(moves: Moves) -> Moves:
    """Let no deadline end a wait for certain, in these moves."""
    moves.compiled = compiled(
        replace(each[-1], is_voluntary=True) if each[-1].action is Action.EXPIRES else each[-1]
        for each in moves.compiled
    )
    return moves


def finding_in_flight(exploration: Exploration, found: Counterexample) -> ChangeFinding:
    """Return what a counterexample shows, with the state in which the saga stands, and the declaration to change."""
    moves = exploration.moves
    assert isinstance(moves, ChangedMoves)  # noqa: S101 -- for the type checker
    case = _Case(moves, found)
    service, function, message, cure = _MESSAGES[found.invariant](case)
    return ChangeFinding(
        rule=found.invariant.value,
        saga=moves.change.old.saga.name,
        service=service,
        function=function,
        message=message,
        cure=cure,
        story=story_of(found),
    )


#: The service, the function to change, the message, and the cure.
_Told = tuple[str, str, str, str]


class _Case:
    """A counterexample with its change."""

    def __init__(self, moves: ChangedMoves, found: Counterexample) -> None:
        self.change = moves.change
        self.story = found.story
        self.sent = found.sent
        self.standing = [each for each in moves.steps_that(found.state, Action.COMPLETES) if _is_to_undo(each, moves)]
        self.over = [
            *moves.steps_that(found.state, Action.REFUSES),
            *moves.steps_that(found.state, Action.UNDONE),
        ]
        self.lost = sorted(moves.lost(found.state), key=self._order)

    @property
    def last(self) -> GraphStep:
        """The step of the move that breaks the invariant, or of the last one."""
        return next(each.move.step for each in reversed(self.story) if each.move.step)

    def on(self, move: Move) -> str:
        """Return the events that lead to a move, as far as they were sent."""
        slots = [slot for slot in move.consumes if not slot.isdisjoint(self.sent)]
        return " and ".join(next(event for event in self.sent if event in slot) for slot in slots)

    def _order(self, move: Move) -> tuple[int, int]:
        """Put first what goes on with the saga: back after a refusal, else forward, on the newest event."""
        is_back = any(each.move.action in _REFUSING for each in self.story)
        wanted = _BACK if is_back else (Action.COMPLETES,)
        newest = max(
            (self.sent.index(event) for slot in move.consumes for event in slot if event in self.sent), default=0
        )
        return (0 if move.action in wanted else 1 if move.action is Action.COMPLETES else 2), -newest


def _is_to_undo(step: GraphStep, moves: ChangedMoves) -> bool:
    old, new = moves.change.old.graph.undoable, moves.change.new.graph.undoable
    return step in new or step.place in {each.place for each in old}


# -- the saga stands still ---------------------------------------------------------------------------------------------


def _no_end(case: _Case) -> _Told:
    for move in case.lost:
        if move.step:
            function, reason, cure = _loss(case, move)
            message = f"a saga that waits in {function} ({move.step.service}) after {case.on(move)} can never end"
            return move.step.service, function, f"{message} under the new graph: {reason}", cure
    last, newest = case.last, case.sent[-1]
    for step in case.change.new.graph.steps:
        empty = [slot for slot in step.slots if slot.isdisjoint(case.sent)]
        if 0 < len(empty) < len(step.slots):
            message = (
                f"a saga that waits in {step.place} can never end under the new graph: nothing sends {shown(empty)}"
            )
            return step.service, step.name, message, f"Keep {step.name} as it was {DRAINED}"
    message = f"a saga that stands after {newest} can never end under the new graph: nothing runs on it"
    return last.service, last.name, message, f"Let a step run on {newest} {DRAINED}"


def _loss(case: _Case, move: Move) -> tuple[str, str, str]:
    """Return the function that did a move before, why it does not any more, and the cure."""
    step = move.step
    assert step  # noqa: S101 -- the moves of no step are voluntary, and never lost
    change, is_back = case.change, move.action in _BACK
    function = step.undoing.name if is_back and step.undoing else step.name
    new = change.new.steps.get(step.place)
    if step.service not in change.new.contracts:
        return function, f"there is no service {step.service} any more", f"Keep {step.service} running {DRAINED}"
    if new is None or (is_back and new.undoing is None):
        what = f"{step.name} has no compensation any more" if new else f"{step.service} has no {step.name} any more"
        return function, what, f"Keep {function} in {step.service} {DRAINED}"
    if gone := [each for each in case.on(move).split(" and ") if not _takes(new, each, is_back=is_back)]:
        text = f"{function} does not run on {' and '.join(gone)} any more"
        return function, text, f"Let {function} run on {' and '.join(gone)}, too, {DRAINED}"
    for event in case.on(move).split(" and "):
        for fault in change.faults(event, Which.OLD, step.service, Which.NEW):
            sent = change.sent(event, Which.OLD)
            text = f"it does not read {event} as the old release sent it: {fault}"
            return function, text, cure_of(fault, event, sent) if sent else ""
    for fault in change.original_faults(step) if move.action is Action.UNDONE else ():
        text = f"it does not read what {step.name} emitted under the old release: {fault}"
        sent = change.sent(step.success, Which.OLD)
        is_renamed = new.success != step.success
        cure = (
            f"Keep {step.success} as what {step.name} emits"
            if is_renamed or not sent
            else cure_of(fault, step.success, sent)
        )
        return function, text, cure
    slots = (new.undoing.slots if new.undoing else ()) if is_back else new.slots
    if empty := [slot for slot in slots if slot.isdisjoint(case.sent)]:
        text = f"it waits for {shown(empty)}, too, and nothing sends that to such a saga"
        return function, text, f"Keep {function} as it was {DRAINED}, and let a new step wait for {shown(empty)}"
    return function, changes_of(change, step.place) or "it is changed", f"Keep {function} as it was {DRAINED}"


def _takes(step: GraphStep, event: str, *, is_back: bool) -> bool:
    slots = (step.undoing.slots if step.undoing else ()) if is_back else step.slots
    return any(event in slot for slot in slots)


# -- the saga ends, and wrong ------------------------------------------------------------------------------------------


def _left_standing(case: _Case) -> _Told:
    end = case.change.new.saga.fails_with
    standing = {each.place for each in case.standing}
    for move in case.lost:
        if move.action is Action.UNDONE and move.step and move.step.place in standing:
            function, reason, cure = _loss(case, move)
            message = (
                f"a saga in flight fails by {end} under the new graph, and {move.step.place} still stands: {reason}"
            )
            return move.step.service, function, message, cure
    step = case.standing[0]
    return _kept(case, f"a saga in flight fails by {end} under the new graph, and {step.place} still stands", step)


def _second_end(case: _Case) -> _Told:
    return _kept(case, f"{case.last.place} ends a saga in flight that has ended before", case.last)


def _completed_in_part(case: _Case) -> _Told:
    end, missing = case.change.new.saga.completes_with, case.over[0]
    message = f"a saga in flight completes by {end} under the new graph, although {missing.place} took no effect"
    return _kept(case, message, missing)


def _undone_too_early(case: _Case) -> _Told:
    step = case.last
    graphs = case.change.new.graph, case.change.old.graph
    later = [each for each in case.standing if any(each in graph.after(step) for graph in graphs)]
    what = f", while {later[0].place} still stands" if later else ""
    return _kept(case, f"{step.undoing_place} undoes {step.name} of a saga in flight too early{what}", step)


def _completed_too_late(case: _Case) -> _Told:
    message = f"{case.last.place} completes in a saga in flight after a step that it follows from was undone"
    return _kept(case, message, case.last)


def _kept(case: _Case, message: str, first: GraphStep) -> _Told:
    """Name the changed declaration that the story is about: what is gone, else what is new, else what moves last."""
    after = [each.move.step for each in _after_deployment(case.story) if each.move.step]
    steps = [each for each in (first, *case.standing, *reversed(after)) if is_changed(case.change, each.place)]
    step = min(steps, key=lambda each: _age(case.change, each), default=first)
    changes = changes_of(case.change, step.place)
    if _age(case.change, step) == 1:
        text = f"Let {step.name} run on an event that only the new release emits, or deploy it"
        return step.service, step.name, message, f"{text} once the sagas in flight have ended"
    return step.service, step.name, message, f"Keep {step.name} as it was {DRAINED}{f': {changes}' if changes else ''}"


def _age(change: Change, step: GraphStep) -> int:
    """Return 0 for a step that is gone, 1 for a new one, 2 for one that both releases have."""
    return 0 if step.place not in change.new.steps else 2 if step.place in change.old.steps else 1


def _after_deployment(story: tuple[StoryMove, ...]) -> tuple[StoryMove, ...]:
    number = next((n for n, each in enumerate(story) if each.move.action is Action.DEPLOY), 0)
    return story[number:]


_MESSAGES: dict[Invariant, Callable[[_Case], _Told]] = {
    Invariant.ONE_END: _second_end,
    Invariant.NOTHING_LOST: _completed_in_part,
    Invariant.REVERSE_ORDER: _undone_too_early,
    Invariant.NOTHING_LATE: _completed_too_late,
    Invariant.NOTHING_LEFT: _left_standing,
    Invariant.AN_END: _no_end,
}
