"""An explicit-state check of a change: a saga begins under one drawing of its steps, and goes on under another.

The new release is deployed at any one moment; a saga that has ended, or stands still, is not in flight. A message once
sent may be delivered at any moment, any number of times, to each step that consumes it in both releases. One that only
the new release has receives what was sent before as a nudge, which repeats the last event of a step; what came from
outside it may miss. The explorer has the same rules in another form; this one is plain and slow, to compare the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.choreography_model import BAD, GOOD, START, Slots, Step, Steps, broken_by, following
from tests.ways import Ways

#: Whether the new release is deployed; where each step stands; what the old release has sent, and the new one.
State = tuple[bool, tuple[str | None, ...], frozenset[str], frozenset[str]]
#: The step, what it does, whether it has to happen, and the state that follows.
Moves = Iterator[tuple[str, str, bool, State]]

NEVER: Slots = (frozenset({"Never"}),)


@dataclass(frozen=True)
class Change:
    """Two drawings of one saga; each step is a service of its own, by its name."""

    old: Steps
    new: Steps

    @property
    def steps(self) -> Steps:
        """All steps as the new release has them; one that is gone does nothing any more."""
        gone = {name: Step(NEVER, each.ok) for name, each in self.old.items() if name not in self.new}
        return {**self.new, **gone}

    def faults(self) -> dict[str, list[str]]:
        """Return what may go wrong under the new release, each with the shortest way to it."""
        names = list(self.steps)
        first: State = (False, (None,) * len(names), frozenset({START}), frozenset())
        found: dict[str, list[str]] = {}
        ways = Ways(first)
        for state in ways:
            moves = [each for each in self._moves(state) if each[3] != state]
            if state[0] and not any(is_forced for _, _, is_forced, _ in moves):
                ways.note(found, self._unsettled(state), state)
            for name, deed, _, after in moves:
                fault = self._broken(after, name, deed)
                if after[0]:
                    ways.note(found, fault, state, f"{name} {deed}")
                if after[0] or not fault:
                    ways.add(after, before=state, by=f"{name} {deed}")
        return found

    def _moves(self, state: State) -> Moves:
        is_changed, last, old_sent, new_sent = state
        if not is_changed:
            yield from self._before(state)
            return
        if "Abort" not in old_sent:
            yield "abort", "comes", False, (True, last, old_sent | {"Abort"}, new_sent)
        certain = {name: self._seen(state, name, is_certain=True) for name in self.new}
        possible = {name: self._seen(state, name, is_certain=False) for name in self.new}
        for seen, is_forced in ((certain, True), (possible, False)):
            for name, each in self.new.items():
                yield from self._of_step(state, name, each, seen[name], is_forced=is_forced)

    def _before(self, state: State) -> Moves:
        _, last, sent, _ = state
        mine = tuple(last[list(self.steps).index(name)] for name in self.old)
        moves = [each for each in following(self.old, (mine, sent)) if each[2] != (mine, sent)]
        for name, deed, (states, after) in moves:
            known = dict(zip(self.old, states, strict=True))
            yield (
                name,
                deed,
                name != "abort",
                (False, tuple(known.get(each) for each in self.steps), after, frozenset()),
            )
        if {GOOD, BAD}.isdisjoint(sent) and any(name != "abort" for name, _, _ in moves):
            yield "release", "is deployed", True, (True, last, sent, frozenset())

    def _of_step(self, state: State, name: str, each: Step, seen: frozenset[str], *, is_forced: bool) -> Moves:
        _, last, old_sent, new_sent = state
        index = list(self.steps).index(name)
        at = last[index]

        def to(entry: str, *events: str) -> State:
            return True, (*last[:index], entry, *last[index + 1 :]), old_sent, new_sent | set(events)

        filled = [bool(slot & seen) for slot in each.on]
        if at is None and all(filled):
            yield name, "completes", is_forced, to("confirmed" if each.ends else "completed", each.ok)
        if at is None and each.no and (all(filled) or (each.has_deadline and any(filled))):
            yield name, "refuses", is_forced, to("failed", each.no)
        if at is None and each.no and "Abort" in old_sent:
            yield name, "is fenced", is_forced, to("fenced", each.no)
        if each.undo_on and all(slot & seen for slot in each.undo_on):
            if at is None:
                yield name, "is fenced", is_forced, to("fenced", each.undone)
            elif at == "completed":
                yield name, "compensates", is_forced, to("compensated", each.undone)
        if at == "completed" and GOOD in (*old_sent, *new_sent):
            yield name, "is confirmed", is_forced, to("confirmed")

    def _seen(self, state: State, name: str, *, is_certain: bool) -> frozenset[str]:
        """Return the events that come to a step of the new release, for certain or perhaps."""
        _, last, old_sent, new_sent = state
        stands = dict(zip(self.steps, last, strict=True))
        former = self.old.get(name)
        taken = {event for slot in (*former.on, *former.undo_on) for event in slot} if former else set()
        seen = set(new_sent) | (old_sent & taken)
        for event in old_sent - seen:
            emitters = [each for each, step in self.old.items() if event in (step.ok, step.no, step.undone)]
            nudging = [each for each in emitters if self._emits(each, event)]
            succeeded = [each for each in nudging if self.old[each].ok == event]
            still = any(stands[each] in ("completed", "confirmed") for each in succeeded)
            if still if succeeded else nudging or not is_certain:
                seen.add(event)
        return frozenset(seen)

    def _emits(self, name: str, event: str) -> bool:
        step = self.new.get(name)
        return step is not None and event in (step.ok, step.no, step.undone)

    def _broken(self, after: State, name: str, deed: str) -> str | None:
        is_changed, last, old_sent, new_sent = after
        steps = self.steps if is_changed else self.old
        stands = tuple(at for each, at in zip(self.steps, last, strict=True) if each in steps)
        ordered = {each: steps[each] for each in self.steps if each in steps}
        return None if name == "release" else broken_by(ordered, (stands, old_sent | new_sent), name, deed)

    def _unsettled(self, state: State) -> str | None:
        last, sent = dict(zip(self.steps, state[1], strict=True)), state[2] | state[3]
        if GOOD in sent:
            return next(
                (f"ended well, {name} {at}" for name, at in last.items() if at in ("completed", "failed")), None
            )
        if BAD not in sent:
            return "no end"
        return next((f"failed, {name} left standing" for name, at in last.items() if at == "completed"), None)
