"""An explicit-state check of joins: a trip with parallel branches, rolled back as one, every interleaving of one saga.

prepare → {hotel, flight, …} at once → confirm (a join) → ticket (the end); prepare's compensation is a join, too.
Messages come late, doubled and in any order; each step may refuse; the join may miss its deadline while it gathers; an
abort may come at any moment. One move is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from tests.ways import Exploration, Ways
from toolkit.protocol.fence import StepState as At

ALL_BRANCHES = ("hotel", "flight", "car")
REQUESTED, ABORT, FAILED = "Requested", "Abort", "TripFailed"


class Variant(StrEnum):
    """The protocol, and what it would be with one of its rules taken away."""

    PROTOCOL = "the protocol"
    SLOT_KEYED = "each arrival takes a key of its slot, not the next position"
    BACK_ON_FIRST = "the first undone branch undoes what came before all of them"
    BACK_COUNTS_UNDONE_ONLY = "the way back waits for undone branches, and not for those that refused"
    FENCE_SILENT = "a fence does not pass the chain on"
    SIBLINGS_DEAF = "a branch does not take its sibling's refusal"


@dataclass(frozen=True, slots=True)
class State:
    """Everything at one moment.

    - `last`: the last entry of each step's stream.
    - `gate`: the branches that the join has gathered; `back`: those that prepare's compensation has.
    - `amid`: arrivals whose transaction has read the gate and not committed; only the variant with keys has them.
    """

    last: tuple[tuple[str, At | None], ...]
    gate: frozenset[str] = frozenset()
    back: frozenset[str] = frozenset()
    amid: frozenset[tuple[str, frozenset[str]]] = frozenset()
    sent: frozenset[str] = frozenset({REQUESTED})

    def at(self, step: str) -> At | None:
        """Return where a step stands."""
        return dict(self.last)[step]

    def move(self, step: str, to: At, *events: str, **also: frozenset[object]) -> State:
        """Append an entry to a step's stream, and send what it emits."""
        last = tuple((name, to if name == step else at) for name, at in self.last)
        return replace(self, last=last, sent=self.sent | set(events), **also)  # type: ignore[arg-type]  # by name


Moves = Iterator[tuple[str, State]]


def ok(step: str) -> str:
    """Return the event of a step's success."""
    return f"{step} ok"


def no(step: str) -> str:
    """Return the event of its refusal."""
    return f"{step} no"


def undone(step: str) -> str:
    """Return the event of its compensation."""
    return f"{step} undone"


@dataclass(slots=True)
class Trip:
    """The saga, in one variant."""

    variant: Variant
    branches: tuple[str, ...]
    has_deadline: bool = True

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps in their order."""
        return ("prepare", *self.branches, "confirm", "ticket")

    def undone_on(self, step: str) -> tuple[str, ...]:
        """Return the events that undo a step; prepare's come through a gate."""
        if step in self.branches:
            siblings = [no(each) for each in self.branches if each != step]
            return (*(() if self.variant is Variant.SIBLINGS_DEAF else siblings), no("confirm"), undone("confirm"))
        return (no("ticket"),) if step == "confirm" else ()

    def moves(self, state: State) -> Moves:
        """Yield all that can happen next."""
        if ABORT not in state.sent:
            yield "an abort is requested", replace(state, sent=state.sent | {ABORT})
        for step in self.steps:
            yield from self._forward(state, step)
            yield from self._fenced_or_undone(state, step)
        yield from self._gather(state)
        yield from self._gather_back(state)
        if state.sent & {no("prepare"), undone("prepare")}:
            yield "the failed end is told", replace(state, sent=state.sent | {FAILED})

    def _forward(self, state: State, step: str) -> Moves:
        on = {"prepare": REQUESTED, "ticket": ok("confirm")} | dict.fromkeys(self.branches, ok("prepare"))
        if step != "confirm" and state.at(step) is None and on[step] in state.sent:
            done = At.CONFIRMED if step == "ticket" else At.COMPLETED
            yield f"{step} completes", state.move(step, done, ok(step))
            yield f"{step} refuses", state.move(step, At.FAILED, no(step))

    def _fenced_or_undone(self, state: State, step: str) -> Moves:
        at = state.at(step)
        has_not_run = at in (None, At.GATHERING)
        if ABORT in state.sent and has_not_run:
            yield f"{step} is fenced by the abort", state.move(step, At.FENCED, no(step))
        for cause in self.undone_on(step):
            if cause in state.sent and at is At.COMPLETED:
                yield f"{step} is undone on {cause}", state.move(step, At.COMPENSATED, undone(step))
            elif cause in state.sent and has_not_run:
                passed_on = () if self.variant is Variant.FENCE_SILENT else (undone(step),)
                yield f"{step} is fenced by {cause}", state.move(step, At.FENCED, *passed_on)
        if ok("ticket") in state.sent and at is At.COMPLETED:
            yield f"{step} is confirmed", state.move(step, At.CONFIRMED)

    def _gather(self, state: State) -> Moves:
        if state.at("confirm") not in (None, At.GATHERING):
            return
        if self.variant is Variant.SLOT_KEYED:
            yield from self._gather_by_keys(state)
        else:  # a transaction that has read an older gate loses the position and reads again: one at a time
            for each in self.branches:
                if ok(each) in state.sent and each not in state.gate:
                    yield from self._arrive(state, each, state.gate)
        if state.at("confirm") is At.GATHERING and self.has_deadline:
            yield "confirm's deadline passes", state.move("confirm", At.FAILED, no("confirm"))

    def _gather_by_keys(self, state: State) -> Moves:
        """Two transactions read the gate, and then write, each under a key of its own slot: none is in the way."""
        under_way = {each for each, _ in state.amid}
        for each in self.branches:
            if ok(each) in state.sent and each not in state.gate | under_way:
                yield f"confirm reads the gate for {each}", replace(state, amid=state.amid | {(each, state.gate)})
        for each, read in sorted(state.amid, key=lambda arrival: arrival[0]):
            yield from self._arrive(replace(state, amid=state.amid - {(each, read)}), each, read)

    def _arrive(self, state: State, branch: str, read: frozenset[str]) -> Moves:
        gate = state.gate | {branch}
        if read | {branch} == set(self.branches):
            done = f"{branch} is the last: confirm"
            yield f"{done} completes", state.move("confirm", At.COMPLETED, ok("confirm"), gate=gate)
            yield f"{done} refuses", state.move("confirm", At.FAILED, no("confirm"), gate=gate)
        else:
            yield f"{branch} is gathered", state.move("confirm", At.GATHERING, gate=gate)

    def _gather_back(self, state: State) -> Moves:
        """Gather for prepare's compensation, in a stream of its own, as long as there may be something to undo."""
        at = state.at("prepare")
        if at not in (None, At.COMPLETED):
            return
        for each in self.branches:
            counts = {undone(each)} | ({no(each)} if self.variant is not Variant.BACK_COUNTS_UNDONE_ONLY else set())
            if each in state.back or not counts & state.sent:
                continue
            back = state.back | {each}
            if back != set(self.branches) and self.variant is not Variant.BACK_ON_FIRST:
                yield f"back: {each} is gathered", replace(state, back=back)
            elif at is At.COMPLETED:
                yield "prepare is undone", state.move("prepare", At.COMPENSATED, undone("prepare"), back=back)
            else:
                yield "prepare is fenced", state.move("prepare", At.FENCED, undone("prepare"), back=back)

    def broken(self, state: State, text: str) -> str | None:
        """Return how a move broke the protocol, if it did."""
        last = {at for _, at in state.last}
        if ok("ticket") in state.sent and (FAILED in state.sent or At.COMPENSATED in last):
            return "completed, yet something was undone"
        if any({undone(each), no(each)} <= state.sent for each in self.branches):
            return "a branch answered twice on the way back"
        if text == "prepare is undone" and any(state.at(each) is At.COMPLETED for each in self.branches):
            return "prepare was undone before a branch"
        has_gone = any(state.at(each) in (At.COMPENSATED, At.FENCED) for each in self.branches)
        if text.endswith("confirm completes") and has_gone:
            return "joined after a branch was undone"
        return None

    def unsettled(self, state: State) -> str | None:
        """Return what is wrong with a state in which nothing more happens, if anything is."""
        last = {at for _, at in state.last}
        if ok("ticket") in state.sent:
            return None if last == {At.CONFIRMED} else "at rest, completed, and not everywhere"
        if FAILED not in state.sent:
            return "at rest without an end"
        return "at rest, failed, and a step left standing" if At.COMPLETED in last else None


def explore(variant: Variant, *, branches: int = 2, has_deadline: bool = True) -> Exploration:
    """Explore every interleaving, breadth first."""
    trip, found = Trip(variant, ALL_BRANCHES[:branches], has_deadline), Exploration()
    ways = Ways(State(tuple((step, None) for step in trip.steps)))
    for state in ways:
        following = [(text, after) for text, after in trip.moves(state) if after != state]
        if all(text == "an abort is requested" for text, _ in following):  # it must end without one
            found.at_rest += 1
            ways.note(found.faults, trip.unsettled(state), state)
        for text, after in following:
            found.transitions |= {
                (was, at) for (_, was), (_, at) in zip(state.last, after.last, strict=True) if was != at and at
            }
            ways.add(after, before=state, by=text)
            ways.note(found.faults, trip.broken(after, text), state, text)
    found.states = len(ways)
    return found
