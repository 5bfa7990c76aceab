"""From a counterexample to its cure: which declaration to change, and how.

A cure is the smallest change that rules out this one story. Another story may remain, so the saga is explored again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from toolkit.checker.explorer import Counterexample, Exploration, StoryMove
from toolkit.checker.findings import Cure, Finding
from toolkit.checker.graph import GraphStep, SagaGraph, Slot
from toolkit.checker.moves import Action, Invariant
from toolkit.checker.stories import story_of

_REFUSING = (Action.REFUSES, Action.EXPIRES, Action.ABORTED)


class _Case:
    """A counterexample with its saga's graph."""

    def __init__(self, exploration: Exploration, found: Counterexample) -> None:
        self.graph: SagaGraph = exploration.graph
        self.story = found.story
        self.sent = found.sent
        stands = exploration.moves.steps_that
        self.standing = [each for each in stands(found.state, Action.COMPLETES) if each in self.graph.undoable]
        self.over = [*stands(found.state, Action.REFUSES), *stands(found.state, Action.UNDONE)]
        self.undone = stands(found.state, Action.UNDONE)

    @property
    def last(self) -> StoryMove:
        """The move that breaks the invariant."""
        return self.story[-1]

    @property
    def refusal(self) -> StoryMove | None:
        """The first refusal."""
        return next((each for each in self.story if each.move.action in _REFUSING), None)

    @property
    def ending(self) -> StoryMove:
        """The first move that ended the saga."""
        return next(
            each for each in self.story if each.move.action is Action.COMPLETES and each.move.emits in self.graph.ends
        )

    def is_later(self, event: str, step: GraphStep) -> bool:
        """Whether a step that follows from this one refused with the event, or was undone with it."""
        emitters = (each.move.step for each in self.story if each.move.emits == event)
        return any(each in self.graph.after(step) and event in each.failures for each in emitters if each)


def finding_of(exploration: Exploration, found: Counterexample) -> Finding:
    """Return what a counterexample shows, and how to change the declarations."""
    cure = _CURES[found.invariant](_Case(exploration, found))
    return cure.finding(found.invariant.value, exploration.graph.name, story_of(found))


# -- the saga completed --------------------------------------------------------------------------------------------


def _second_end(case: _Case) -> Cure:
    last, first = case.last, case.ending
    function, service = _step(last).name, _step(last).service
    other = "the saga again" if first.move.emits == last.move.emits else f"it by {last.move.emits}"
    message = f"{_step(first).name} ends the saga by {first.move.emits}, and then {function} ends {other}"
    return Cure(
        function, service, message, "Let one step end the saga, after all others: it needs a parameter for each"
    )


def _completed_in_part(case: _Case) -> Cure:
    graph = case.graph
    ender = _step(case.ending)
    refusing = case.refusal.move.step if case.refusal else None
    missing = refusing or case.over[0]
    fate = "has refused" if refusing else "took no effect"
    message = f"{ender.place} completes the saga by {graph.completes_with}, although {missing.name} {fate}"
    if case.refusal and graph.completes_with in graph.reached(missing.refusals):
        refusal = str(case.refusal.move.emits)
        return Cure(
            ender.name, ender.service, message,
            f"A saga with a refusal fails: let no step on the way to {graph.completes_with} run on {refusal}",
        )  # fmt: skip
    text = _wait(case, ender.name, ender.slots, case.sent, missing, (missing.success,))
    return Cure(ender.name, ender.service, message, text)


# -- undone in the wrong order ---------------------------------------------------------------------------------------


def _undone_too_early(case: _Case) -> Cure:
    step = _step(case.last)
    standing = [each for each in case.standing if each in case.graph.after(step)]
    later = next((each for each in standing if any(step.success in slot for slot in each.slots)), standing[0])
    message = f"{step.undoing_place} undoes {step.name} while {later.place}, which follows from it, still stands"
    return _wait_for_undoing(case, step, later, case.last, message)


def _completed_too_late(case: _Case) -> Cure:
    later = _step(case.last)
    step = next(each for each in case.undone if later in case.graph.after(each))
    undoing = next(each for each in case.story if each.move.step is step and each.move.action is Action.UNDONE)
    message = f"{later.place} completes after {step.undoing_place} has undone {step.name}, which it follows from"
    return _wait_for_undoing(case, step, later, undoing, message)


def _wait_for_undoing(case: _Case, step: GraphStep, later: GraphStep, undone: StoryMove, message: str) -> Cure:
    """Let a step's compensation wait until a later step is undone, fenced or refused."""
    undoing = step.undoing
    assert undoing  # noqa: S101 -- it was undone
    if later.undoing is None:
        return _without_compensation(later, " and ".join(undone.on), message, then=undoing.name)
    text = _wait(case, undoing.name, undoing.slots, undone.on, later, later.failures)
    return Cure(undoing.name, step.service, message, text)


# -- the saga failed, or never ends ----------------------------------------------------------------------------------


def _left_standing(case: _Case) -> Cure:
    step = case.standing[0]
    ender = _step(case.ending)
    news = case.refusal.move.emits if case.refusal else case.ending.on[0]
    message = f"{ender.place} fails the saga by {case.graph.fails_with}, and {step.place} still stands"
    if step.undoing is None:
        return _without_compensation(step, str(news), message)
    if step.undoing.event not in case.graph.reached(_failures(case)):
        return Cure(step.undoing.name, step.service, message, f"Let {step.undoing.name} run on {news}, too")
    text = _wait(case, ender.name, ender.slots, case.ending.on, step, step.failures)
    return Cure(ender.name, ender.service, message, text)


def _no_end(case: _Case) -> Cure:
    message = "nothing more happens, and the saga has not ended"
    if case.refusal is None:
        return _stuck_forward(case, message)
    for step in reversed(case.standing):  # the last one waits for no other
        if cure := _stuck_compensation(case, step, message):
            return cure
    end = next((each for each in case.graph.steps if each.success == case.graph.fails_with), None)
    if end is None:
        step = _step(case.refusal)
        return Cure(
            step.name,
            step.service,
            message,
            f"Let a step run on {case.refusal.move.emits}, and return {case.graph.fails_with}",
        )
    missing = _missing(case, end.slots)
    return Cure(end.name, end.service, message, f"Let {end.name} run on {_names(missing)}, too")


def _stuck_forward(case: _Case, message: str) -> Cure:
    graph, begun = case.graph, {each.move.step for each in case.story}
    for step in graph.steps:
        empty = [slot for slot in step.slots if slot.isdisjoint(case.sent)]
        if step not in begun and len(empty) < len(step.slots):
            if all(slot & set(graph.people) for slot in empty):
                cure = f"give {step.name} a timeout, and a refusal to return then"
                text = f"{_names(sorted(empty[0]))} may never come: {cure}"
            else:
                text = f"Let a step return {_names(sorted(empty[0]))} in this story, or let {step.name} wait for less"
            return Cure(step.name, step.service, message, text)
    last = next((each.move.step for each in reversed(case.story) if each.move.step), graph.steps[0])
    text = f"Let a step run on {last.success}, and the last one return {graph.completes_with}"
    return Cure(last.name, last.service, message, text)


def _stuck_compensation(case: _Case, step: GraphStep, message: str) -> Cure | None:
    message = f"{message}: {step.place} still stands"
    first = case.refusal.move if case.refusal else None
    is_later = first is not None and first.step in case.graph.after(step)
    news = _missing(case, step.undoing.slots if step.undoing and is_later else ())
    if step.undoing is None:
        return _without_compensation(step, _names(news), message)
    return Cure(step.undoing.name, step.service, message, f"Let {step.undoing.name} run on {_names(news)}, too")


def _missing(case: _Case, slots: Iterable[Slot]) -> list[str]:
    """Return the failures of steps that the empty slots wait for; without any, the first refusal."""
    empty = [slot for slot in slots if slot.isdisjoint(case.sent)]
    awaited = [each for each in case.graph.steps if any(not slot.isdisjoint(each.failures) for slot in empty)]
    found = [event for each in awaited for event in each.failures if event in case.sent]
    return found or ([str(case.refusal.move.emits)] if case.refusal else [])


def _failures(case: _Case) -> list[str]:
    return [event for event in case.sent if any(event in step.failures for step in case.graph.steps)]


# -- words -----------------------------------------------------------------------------------------------------------


def _wait(
    case: _Case, function: str, slots: Iterable[Slot], on: Sequence[str], step: GraphStep, events: tuple[str, ...]
) -> str:
    """Return how a function that ran on the events `on` comes to wait for one of `events`, which a step emits."""
    wanted = " | ".join(events)
    early = next((event for event in on if case.is_later(event, step)), None)
    if any(early in slot for slot in slots) and step.undoing:
        is_there = any(step.undoing.event in slot for slot in slots)
        return f"Let {function} run on {step.undoing.event}{', and no more on' if is_there else ' instead of'} {early}"
    if any(not slot.isdisjoint(events) for slot in slots):
        return f"Let {function} take {wanted} in a parameter of its own: it has to wait for {step.name} in any case"
    return f"Let {function} wait for {step.name}, too: give it a parameter of the type {wanted}"


def _without_compensation(step: GraphStep, news: str, message: str, *, then: str = "") -> Cure:
    after = f", and let {then} wait for its event" if then else ""
    return Cure(
        step.name, step.service, message,
        f"Give {step.name} a compensation that runs on {news}: @….compensation(of={step.name}){after}",
    )  # fmt: skip


def _step(each: StoryMove) -> GraphStep:
    assert each.move.step  # noqa: S101 -- for the type checker: only an abort and an answer are moves of no step
    return each.move.step


def _names(events: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(events))


_CURES: dict[Invariant, Callable[[_Case], Cure]] = {
    Invariant.ONE_END: _second_end,
    Invariant.NOTHING_LOST: _completed_in_part,
    Invariant.REVERSE_ORDER: _undone_too_early,
    Invariant.NOTHING_LATE: _completed_too_late,
    Invariant.NOTHING_LEFT: _left_standing,
    Invariant.AN_END: _no_end,
}
