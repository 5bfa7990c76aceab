"""A counterexample in plain words: one sentence for each move that leads to the violation."""

from __future__ import annotations

from toolkit.checker.explorer import Counterexample, StoryMove
from toolkit.checker.moves import Action

_SENTENCES = {
    Action.COMPLETES: "{step} completes",
    Action.REFUSES: "{step} refuses with {emits}",
    Action.EXPIRES: "the deadline of {step} passes, and it refuses with {emits}",
    Action.UNDONE: "{undoing} undoes {step} on {on}",
    Action.FENCED: "{on} fences {step}",
    Action.ABORTED: "the abort fences {step}, which refuses with {emits}",
    Action.ANSWER: "the answer {emits} is given",
    Action.ABORT: "an abort is requested",
    Action.DEPLOY: "the new release{of} is deployed",
    Action.RETIRE: "the old release{of} is gone",
}


def story_of(counterexample: Counterexample) -> tuple[str, ...]:
    """Return one sentence for each move."""
    return tuple(_sentence(each) for each in counterexample.story)


def _sentence(each: StoryMove) -> str:
    step = each.move.step
    return _SENTENCES[each.move.action].format(
        step=step.name if step else "",
        undoing=step.undoing.name if step and step.undoing else "",
        emits=each.move.emits,
        on=" and ".join(each.on),
        of=f" of {each.move.service}" if each.move.service else "",
    )
