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
    DEPLOY = "deploy"
    """A new release begins, where a change is explored."""
    RETIRE = "retire"
    """The last replica of an old release is gone."""


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

    - `breaks` are the bits of the state before that make it a violation.
    - `is_voluntary`: nothing forces it to happen, so a saga that only waits for such moves is at rest.
    - `service`: what a deployment replaces; None stands for all services at once.
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
    is_voluntary: bool = False
    service: str | None = None

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


#: The masks of a move, and the move: plain integers, since the explorer tests them at each state.
Compiled = tuple[int, int, tuple[int, ...], int, int, Move]


def compiled(moves: Iterable[Move]) -> tuple[Compiled, ...]:
    """Return the moves with their masks, the bits that a move clears as those that it keeps."""
    return tuple((each.absent, each.present, each.slots, ~each.clears, each.sets, each) for each in moves)


class Bits:
    """The bits of a state: so many classes of events, an abort, two ends, and three for each step, by its place."""

    def __init__(self, events: int, places: Iterable[str]) -> None:
        self.abort, self.completed, self.failed = (1 << bit for bit in range(events, events + 3))
        self.done = {place: 1 << (events + 3 + 3 * index) for index, place in enumerate(places)}
        self.ended = self.completed | self.failed
        #: The bits from this one on are free.
        self.free = 1 << (events + 3 + 3 * len(self.done))

    def of(self, steps: Iterable[GraphStep], bits: Callable[[int], int]) -> int:
        """Return some bits of several steps, each made from the first bit of a step."""
        mask = 0
        for step in steps:
            mask |= bits(self.done[step.place])
        return mask


class GraphMoves:
    """The moves of one graph's steps, upon the bits of a state; `_sent` and `_taken` say which bits events have."""

    def __init__(self, graph: SagaGraph, bits: Bits) -> None:
        self.graph = graph
        self.bits = bits

    def moves(self) -> Iterator[Move]:
        """Yield all moves: of the steps, of people, and of aborts."""
        for step in self.graph.steps:
            yield from self._forward(step)
            yield from self._back(step)
        for event in self.graph.people:
            sent = self._sent(event)
            yield Move(Action.ANSWER, None, event, absent=sent, sets=sent, is_voluntary=True)
        for step in self.graph.steps:
            if step.refusals:
                yield self._refusal(Action.ABORTED, step, step.refusals[0], (), present=self.bits.abort)
        if any(step.refusals for step in self.graph.steps):
            yield Move(Action.ABORT, None, None, absent=self.bits.abort, sets=self.bits.abort, is_voluntary=True)

    def _sent(self, event: str) -> int:
        """Return the bit of an event that is emitted; 0 where no step consumes it."""
        raise NotImplementedError

    def _taken(self, step: GraphStep, slot: Slot, action: Action) -> int:
        """Return the bits of the events that fill a slot of a step, or of its compensation, for such a move."""
        raise NotImplementedError

    def _later(self, step: GraphStep) -> Iterable[GraphStep]:
        """Return the steps that have to be undone before this one."""
        return self.graph.after(step) & self.graph.undoable - {step}

    def _earlier(self, step: GraphStep) -> Iterable[GraphStep]:
        """Return the steps that this one follows from."""
        return [each for each in self.graph.steps if step in self.graph.after(each)]

    def _forward(self, step: GraphStep) -> Iterator[Move]:
        done, end = self.bits.done[step.place], self._end(step)
        breaks = [(self.bits.ended if end else 0, Invariant.ONE_END)]
        if step in self.graph.undoable:
            breaks.append((self.bits.of(self._earlier(step), lambda bit: bit << 2), Invariant.NOTHING_LATE))
        yield Move(
            Action.COMPLETES, step, step.success, absent=done * 7, slots=self._filled(step, Action.COMPLETES),
            sets=done | self._sent(step.success) | end, breaks=tuple(breaks),
        )  # fmt: skip
        slots = self._filled(step, Action.REFUSES)
        for refusal in {self._sent(each): each for each in reversed(step.refusals)}.values():
            yield self._refusal(Action.REFUSES, step, refusal, slots)
        if step.has_deadline and len(slots) > 1:
            yield self._expiry(step)

    def _expiry(self, step: GraphStep) -> Move:
        any_slot = frozenset[str]().union(*step.slots)
        slots = (self._taken(step, any_slot, Action.EXPIRES),)
        return self._refusal(Action.EXPIRES, step, step.refusals[0], slots)

    def _refusal(
        self, action: Action, step: GraphStep, event: str, slots: tuple[int, ...], *, present: int = 0
    ) -> Move:
        done = self.bits.done[step.place]
        return Move(
            action, step, event, absent=done * 7, present=present, slots=slots,
            sets=done << 1 | self._sent(event),
        )  # fmt: skip

    def _back(self, step: GraphStep) -> Iterator[Move]:
        if step.undoing is None:
            return
        done, sent = self.bits.done[step.place], self._sent(step.undoing.event)
        later, slots = self.bits.of(self._later(step), lambda bit: bit), self._filled(step, Action.UNDONE)
        yield Move(
            Action.UNDONE, step, step.undoing.event, absent=0, present=done, slots=slots,
            clears=done, sets=done << 2 | sent, breaks=((later, Invariant.REVERSE_ORDER),),
        )  # fmt: skip
        yield Move(Action.FENCED, step, step.undoing.event, absent=done * 7, slots=slots, sets=done << 1 | sent)

    def _filled(self, step: GraphStep, action: Action) -> tuple[int, ...]:
        """Return the bits that fill each slot: the step's, or its compensation's."""
        slots = step.slots if action is not Action.UNDONE else step.undoing.slots if step.undoing else ()
        return tuple(self._taken(step, slot, action) for slot in slots)

    def _end(self, step: GraphStep) -> int:
        """Return the bit of the end that the step's success brings; no other emission of that event ends the saga."""
        if step.success == self.graph.completes_with:
            return self.bits.completed
        return self.bits.failed if step.success == self.graph.fails_with else 0


class Moves(GraphMoves):
    """All moves of a saga, and the masks of its states."""

    #: The moves that deploy a change; a saga of one graph alone has none.
    deployments: tuple[Compiled, ...] = ()

    def __init__(self, graph: SagaGraph) -> None:
        self.events = _classes(graph)
        super().__init__(graph, Bits(len(set(self.events.values())), [step.place for step in graph.steps]))
        #: The event that the saga begins with.
        self.starts_with = graph.starts_with
        self.start = self._sent(graph.starts_with)
        self.refused_or_undone = self.bits.of(graph.steps, lambda done: done << 1 | done << 2)
        self.standing = self.bits.of(graph.undoable, lambda done: done)
        self.all = tuple(self.moves())
        self.compiled = compiled(self.all)

    def violation(self, before: int, move: Move, after: int) -> Invariant | None:
        """Return the invariant that a move breaks."""
        for mask, invariant in move.breaks:
            if before & mask:
                return invariant
        if after & self.bits.completed and after & self.refused_or_undone:
            return Invariant.NOTHING_LOST
        if after & self.bits.failed and after & self.standing:
            return Invariant.NOTHING_LEFT
        return None

    def has_ended(self, state: int) -> bool:
        """Whether a step ended the saga."""
        return bool(state & self.bits.ended)

    def counts(self, state: int) -> bool:
        """Whether a violation in this state is one of what is explored; of one graph alone, each is."""
        return True

    def steps_that(self, state: int, action: Action) -> list[GraphStep]:
        """Return the steps that stand completed, or that are undone, or over without an effect (refused)."""
        shift = {Action.COMPLETES: 0, Action.REFUSES: 1, Action.UNDONE: 2}[action]
        return [step for step in self.graph.steps if state & self.bits.done[step.place] << shift]

    def _sent(self, event: str) -> int:
        return 1 << self.events[event] if event in self.events else 0

    def _taken(self, step: GraphStep, slot: Slot, action: Action) -> int:
        mask = 0
        for event in slot:
            mask |= self._sent(event)
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
