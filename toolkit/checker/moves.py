"""The moves of one saga, compiled to bit masks: one move is one transaction, or one event from outside.

A state is an integer: a bit for each class of events that were sent, one for an abort, one for each end, and three for
each step. A message once sent may be delivered at any moment and any number of times, so no event's bit is ever
cleared. A confirmed step has no bits of its own: what may undo a step after its saga completed is a violation already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from toolkit.checker.graph import GraphStep, SagaGraph, Slot


class Action(StrEnum):
    """What one move does."""

    COMPLETES = "completes"
    REFUSES = "refuses"
    EXPIRES = "expires"
    """The step's deadline passes before each of its slots is filled, and it refuses."""
    UNDONE = "undone"
    FENCED = "fenced"
    """Its compensation comes first, so it never takes effect; the compensation's event is emitted all the same."""
    ABORTED = "aborted"
    """An abort comes first, so it never takes effect; its first refusal is emitted."""
    ANSWER = "answer"
    """A person sends an event, or any other system outside."""
    ABORT = "abort"


#: Moves that nothing forces to happen: a saga that only waits for them is at rest.
VOLUNTARY = (Action.ANSWER, Action.ABORT)


class Invariant(StrEnum):
    """What holds in every interleaving; the value names a violation."""

    ONE_END = "second end"
    NOTHING_LOST = "completed in part"
    REVERSE_ORDER = "undone too early"
    NOTHING_LATE = "completed too late"
    NOTHING_LEFT = "left standing"
    AN_END = "no end"


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """A move: `absent`, `present` and `slots` (at least one bit of each) are its guard, `clears` and `sets` its effect.

    `breaks` are the bits of the state before that make it a violation.
    """

    action: Action
    step: GraphStep | None
    emits: str | None
    absent: int
    sets: int
    present: int = 0
    slots: tuple[int, ...] = ()
    clears: int = 0
    breaks: tuple[tuple[int, Invariant], ...] = ()

    def is_possible(self, state: int) -> bool:
        """Whether it may happen in a state."""
        is_guarded = state & self.absent or state & self.present != self.present
        return not is_guarded and all(state & slot for slot in self.slots)

    def after(self, state: int) -> int:
        """Return the state that it leads to."""
        return state & ~self.clears | self.sets

    @property
    def consumes(self) -> tuple[Slot, ...]:
        """The slots of the events that lead to it."""
        if self.step is None or self.action is Action.ABORTED:
            return ()
        if self.action in (Action.UNDONE, Action.FENCED):
            return self.step.undoing.slots if self.step.undoing else ()
        return self.step.slots


class Moves:
    """All moves of a saga, and the masks of its states."""

    def __init__(self, graph: SagaGraph) -> None:
        self.graph = graph
        self.events = _classes(graph)
        width = len(set(self.events.values()))
        self._abort, self.completed, self.failed = (1 << bit for bit in range(width, width + 3))
        self._done = {step: 1 << (width + 3 + 3 * index) for index, step in enumerate(graph.steps)}
        self.start = self._sent(graph.starts_with)
        self.refused_or_undone = self._states(graph.steps, lambda done: done << 1 | done << 2)
        self.standing = self._states(graph.undoable, lambda done: done)
        self.all = tuple(self._moves())
        #: The masks of each move beside it: plain integers, since the explorer tests them at each state.
        self.compiled = [(each.absent, each.present, each.slots, ~each.clears, each.sets, each) for each in self.all]

    def violation(self, before: int, move: Move, after: int) -> Invariant | None:
        """Return the invariant that a move breaks."""
        for mask, invariant in move.breaks:
            if before & mask:
                return invariant
        if after & self.completed and after & self.refused_or_undone:
            return Invariant.NOTHING_LOST
        if after & self.failed and after & self.standing:
            return Invariant.NOTHING_LEFT
        return None

    def has_ended(self, state: int) -> bool:
        """Whether a step ended the saga."""
        return bool(state & (self.completed | self.failed))

    def steps_that(self, state: int, action: Action) -> list[GraphStep]:
        """Return the steps that stand completed, or that are undone, or over without an effect (refused)."""
        shift = {Action.COMPLETES: 0, Action.REFUSES: 1, Action.UNDONE: 2}[action]
        return [step for step, done in self._done.items() if state & done << shift]

    def _moves(self) -> Iterator[Move]:
        for step in self.graph.steps:
            yield from self._forward(step)
            yield from self._back(step)
        for event in self.graph.people:
            yield Move(Action.ANSWER, None, event, absent=self._sent(event), sets=self._sent(event))
        for step in self.graph.steps:
            if step.refusals:
                yield self._refusal(Action.ABORTED, step, step.refusals[0], (), present=self._abort)
        if any(step.refusals for step in self.graph.steps):
            yield Move(Action.ABORT, None, None, absent=self._abort, sets=self._abort)

    def _forward(self, step: GraphStep) -> Iterator[Move]:
        done, slots, end = self._done[step], self._filled(step.slots), self._end(step)
        breaks = [(self.completed | self.failed if end else 0, Invariant.ONE_END)]
        if step in self.graph.undoable:
            earlier = [each for each in self.graph.steps if step in self.graph.after(each)]
            breaks.append((self._states(earlier, lambda bit: bit << 2), Invariant.NOTHING_LATE))
        yield Move(
            Action.COMPLETES, step, step.success, absent=done * 7, slots=slots,
            sets=done | self._sent(step.success) | end, breaks=tuple(breaks),
        )  # fmt: skip
        for refusal in {self._sent(each): each for each in reversed(step.refusals)}.values():
            yield self._refusal(Action.REFUSES, step, refusal, slots)
        if step.has_deadline and len(slots) > 1:
            yield self._refusal(Action.EXPIRES, step, step.refusals[0], self._filled([frozenset().union(*step.slots)]))

    def _refusal(
        self, action: Action, step: GraphStep, event: str, slots: tuple[int, ...], *, present: int = 0
    ) -> Move:
        done = self._done[step]
        return Move(
            action, step, event, absent=done * 7, present=present, slots=slots,
            sets=done << 1 | self._sent(event),
        )  # fmt: skip

    def _back(self, step: GraphStep) -> Iterator[Move]:
        if step.undoing is None:
            return
        done, sent, slots = self._done[step], self._sent(step.undoing.event), self._filled(step.undoing.slots)
        later = self._states(self.graph.after(step) & self.graph.undoable - {step}, lambda bit: bit)
        yield Move(
            Action.UNDONE, step, step.undoing.event, absent=0, present=done, slots=slots,
            clears=done, sets=done << 2 | sent, breaks=((later, Invariant.REVERSE_ORDER),),
        )  # fmt: skip
        yield Move(Action.FENCED, step, step.undoing.event, absent=done * 7, slots=slots, sets=done << 1 | sent)

    def _sent(self, event: str) -> int:
        return 1 << self.events[event] if event in self.events else 0

    def _filled(self, slots: Iterable[Slot]) -> tuple[int, ...]:
        masks = []
        for slot in slots:
            mask = 0
            for event in slot:
                mask |= self._sent(event)
            masks.append(mask)
        return tuple(masks)

    def _end(self, step: GraphStep) -> int:
        """Return the bit of the end that the step's success brings; no other emission of that event ends the saga."""
        if step.success == self.graph.completes_with:
            return self.completed
        return self.failed if step.success == self.graph.fails_with else 0

    def _states(self, steps: Iterable[GraphStep], bits: Callable[[int], int]) -> int:
        mask = 0
        for step in steps:
            mask |= bits(self._done[step])
        return mask


def _classes(graph: SagaGraph) -> dict[str, int]:
    """Return the number of each event's class: events that fill the same slots, and no others, are one.

    An event that fills none has no class.
    """
    uses: dict[str, list[tuple[str, int]]] = {}
    for step in graph.steps:
        slots = [*step.slots, *(step.undoing.slots if step.undoing else ())]
        for index, slot in enumerate(slots):
            for event in slot:
                uses.setdefault(event, []).append((step.place, index))
    numbers: dict[tuple[tuple[str, int], ...], int] = {}
    return {event: numbers.setdefault(tuple(found), len(numbers)) for event, found in uses.items()}
