"""An explicit-state check of any choreography whose steps run on one event each: every interleaving of one saga.

A message once sent may be delivered at any moment, any number of times, in any order. A step may succeed or refuse, and
an abort may come at any moment. One move is one transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

GOOD, BAD, START = "Good", "Bad", "Start"


@dataclass(frozen=True, slots=True)
class Step:
    """A step, and its compensation if it has one; events go by their names."""

    on: frozenset[str]
    ok: str
    no: str = ""
    undo_on: frozenset[str] = frozenset()
    undone: str = ""

    @property
    def ends(self) -> bool:
        """Whether its success ends the saga."""
        return self.ok in (GOOD, BAD)


Steps = dict[str, Step]
#: Where each step stands, and the events that were sent.
State = tuple[tuple[str | None, ...], frozenset[str]]
LogDeltas = Iterator[tuple[str, str, State]]


def step(on: str, ok: str, no: str = "", undo_on: str = "", undone: str = "") -> Step:
    """Return a step; several events are written as `A|B`."""
    return Step(frozenset(on.split("|")), ok, no, frozenset(undo_on.split("|") if undo_on else ()), undone)


def faults(steps: Steps) -> dict[str, list[str]]:
    """Return what may go wrong, each with the shortest way to it."""
    first: State = (None,) * len(steps), frozenset({START})
    came_by: dict[State, tuple[State, str] | None] = {first: None}
    found: dict[str, list[str]] = {}
    waiting = deque([first])
    while waiting:
        state = waiting.popleft()
        following = [move for move in _moves(steps, state) if move[2] != state]
        if all(name == "abort" for name, _, _ in following) and (fault := _unsettled(steps, state)):
            found.setdefault(fault, _way(came_by, state))
        for name, deed, after in following:
            if fault := _broken(steps, after, name, deed):
                found.setdefault(fault, [*_way(came_by, state), f"{name} {deed}"])
            if after not in came_by:
                came_by[after] = state, f"{name} {deed}"
                waiting.append(after)
    return found


def _way(came_by: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    way: list[str] = []
    while before := came_by[state]:
        state = before[0]
        way.insert(0, before[1])
    return way


def _moves(steps: Steps, state: State) -> LogDeltas:
    last, sent = state

    def to(index: int, entry: str, *events: str) -> State:
        return (*last[:index], entry, *last[index + 1 :]), sent | set(events)

    if "Abort" not in sent:
        yield "abort", "comes", (last, sent | {"Abort"})
    for index, (name, each) in enumerate(steps.items()):
        at = last[index]
        if at is None and each.on & sent:
            yield name, "completes", to(index, "confirmed" if each.ends else "completed", each.ok)
        if at is None and each.no and each.on & sent:
            yield name, "refuses", to(index, "failed", each.no)
        if at is None and each.no and "Abort" in sent:
            yield name, "is fenced", to(index, "fenced", each.no)
        if at in (None, "completed") and each.undo_on & sent:
            yield name, "compensates" if at else "is fenced", to(index, "compensated" if at else "fenced", each.undone)
        if at == "completed" and GOOD in sent:
            yield name, "is confirmed", to(index, "confirmed")


def _after(steps: Steps, name: str) -> set[str]:
    """Return the steps that may run because this one did, where no step refuses."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        ok = steps[waiting.pop()].ok
        new = {other for other, each in steps.items() if ok in each.on} - found
        found |= new
        waiting += new
    return found


def _broken(steps: Steps, state: State, name: str, deed: str) -> str | None:
    last, sent = dict(zip(steps, state[0], strict=True)), state[1]
    if {GOOD, BAD} <= sent:
        return "both ends"
    if GOOD in sent and "compensated" in last.values():
        return "ended well, yet a step was undone"
    if deed == "compensates" and any(last[each] == "completed" for each in _after(steps, name)):
        return f"{name} undone before a later step"
    undone = [each for each in steps if last[each] == "compensated" and name in _after(steps, each)]
    if deed == "completes" and steps[name].ok != BAD and undone:
        return f"{name} completed after the earlier {undone[0]} was undone"
    return None


def _unsettled(steps: Steps, state: State) -> str | None:
    last, sent = dict(zip(steps, state[0], strict=True)), state[1]
    if GOOD in sent:
        return next((f"ended well, {name} {at}" for name, at in last.items() if at in ("completed", "failed")), None)
    if BAD not in sent:
        return "no end"
    return next((f"failed, {name} left standing" for name, at in last.items() if at == "completed"), None)
