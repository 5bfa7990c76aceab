"""An explicit-state check of any choreography, with joins, deadlines and people: every interleaving of one saga.

A message once sent may be delivered at any moment, any number of times, in any order. A step runs once each of its
slots holds an event; it may succeed or refuse, and after its deadline it refuses with some slots empty. An external
step claims first, and nothing fences it until its outcome. An abort may come at any moment. One move is one
transaction. The explorer has the same rules in another form; this one is plain and slow, to compare the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.ways import Ways

GOOD, BAD, START = "Good", "Bad", "Start"
UNDONE = {"compensating", "compensated"}

Slots = tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A step, and its compensation if it has one; events go by their names."""

    on: Slots
    ok: str
    no: str = ""
    undo_on: Slots = ()
    undone: str = ""
    has_deadline: bool = False
    is_external: bool = False

    @property
    def ends(self) -> bool:
        """Whether its success ends the saga."""
        return self.ok in (GOOD, BAD)


Steps = dict[str, Step]
#: Where each step stands, and the events that were sent.
State = tuple[tuple[str | None, ...], frozenset[str]]
Moves = Iterator[tuple[str, str, State]]


def slots(text: str) -> Slots:
    """Return the slots that a text writes: `A|B & C` takes A or B, and C."""
    return tuple(frozenset(word.strip() for word in part.split("|")) for part in text.split("&")) if text else ()


def step(on: str, ok: str, no: str = "", undo_on: str = "", undone: str = "", *, has_deadline: bool = False) -> Step:
    """Return a step; its slots are written as `A|B & C`."""
    return Step(slots(on), ok, no, slots(undo_on), undone, has_deadline)


def faults(steps: Steps, people: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Return what may go wrong, each with the shortest way to it; `people` are the events that they may send."""
    first: State = (None,) * len(steps), frozenset({START})
    found: dict[str, list[str]] = {}
    ways = Ways(first)
    for state in ways:
        following = [move for move in _moves(steps, people, state) if move[2] != state]
        if all(name in ("abort", "person") for name, _, _ in following):
            ways.note(found, _unsettled(steps, state), state)
        for name, deed, after in following:
            ways.note(found, broken_by(steps, after, name, deed), state, f"{name} {deed}")
            ways.add(after, before=state, by=f"{name} {deed}")
    return found


def _moves(steps: Steps, people: tuple[str, ...], state: State) -> Moves:
    last, sent = state

    def to(index: int, entry: str, *events: str) -> State:
        return (*last[:index], entry, *last[index + 1 :]), sent | set(events)

    if "Abort" not in sent:
        yield "abort", "comes", (last, sent | {"Abort"})
    for event in people:
        yield "person", f"sends {event}", (last, sent | {event})
    for index, (name, each) in enumerate(steps.items()):
        at = last[index]
        filled = [bool(slot & sent) for slot in each.on]
        is_expired = each.has_deadline and any(filled)
        if at is None and each.is_external and all(filled):
            yield name, "claims", to(index, "executing")
        if at == "executing" or (at is None and all(filled) and not each.is_external):
            yield name, "completes", to(index, "confirmed" if each.ends else "completed", each.ok)
        if each.no and (at == "executing" or (at is None and (all(filled) or is_expired))):
            yield name, "refuses", to(index, "failed", each.no)
        if at is None and each.no and "Abort" in sent:
            yield name, "is fenced", to(index, "fenced", each.no)
        yield from _back(state, index, name, each)
        if at == "completed" and GOOD in sent:
            yield name, "is confirmed", to(index, "confirmed")


def _back(state: State, index: int, name: str, each: Step) -> Moves:
    last, sent = state
    at = last[index]
    goes = bool(each.undo_on) and all(slot & sent for slot in each.undo_on)

    def to(entry: str, *events: str) -> State:
        return (*last[:index], entry, *last[index + 1 :]), sent | set(events)

    if at is None and goes:
        yield name, "is fenced", to("fenced", each.undone)
    elif at == "completed" and goes and each.is_external:
        yield name, "compensates", to("compensating")
    elif at == "completed" and goes:
        yield name, "compensates", to("compensated", each.undone)
    elif at == "compensating":
        yield name, "is undone", to("compensated", each.undone)


def _after(steps: Steps, name: str) -> set[str]:
    """Return the steps that may run because this one did, where no step refuses."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        ok = steps[waiting.pop()].ok
        new = {other for other, each in steps.items() if any(ok in slot for slot in each.on)} - found
        found |= new
        waiting += new
    return found


def following(steps: Steps, state: State) -> Moves:
    """Yield the moves from a state, of a saga that waits for no people."""
    return _moves(steps, (), state)


def broken_by(steps: Steps, state: State, name: str, deed: str) -> str | None:
    """Return the invariant that a move to this state breaks."""
    last, sent = dict(zip(steps, state[0], strict=True)), state[1]
    if {GOOD, BAD} <= sent:
        return "both ends"
    if GOOD in sent and UNDONE & set(last.values()):
        return "ended well, yet a step was undone"
    if deed == "compensates" and any(last[each] == "completed" for each in _after(steps, name)):
        return f"{name} undone before a later step"
    undone = [each for each in steps if last[each] in UNDONE and name in _after(steps, each)]
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
