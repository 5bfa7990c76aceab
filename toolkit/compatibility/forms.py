"""The events of a change as bits: an event that both releases send alike is one form, else it has two.

A form fills a slot for certain if its consumer reads each such message, and each one comes to it; it may fill it if
that depends on the message. Forms that fill the same slots alike are one bit.

What the old release has sent comes as a nudge to a consumer that only the new one has, and a nudge repeats the last
event of a step: so a step's success comes there while the step stands. An event that such a consumer takes has two
forms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import cached_property
from itertools import product

from toolkit.checker.graph import Slot
from toolkit.compatibility.releases import Change, Which

#: An event as one release sends it; OLD stands for both where they send it alike.
Form = tuple[str, Which]
#: A slot of one release: of the step at this place, or of its compensation.
Use = tuple[Which, str, bool, Slot]


class Level(IntEnum):
    """How certain it is that a form fills a slot."""

    CERTAIN = 0
    POSSIBLE = 1
    """It may be read, or it may come."""
    GATHERED = 2
    """A join of the old release may have gathered it, whether the new release reads it or not."""


class Forms:
    """The forms of one change, each with its bit."""

    def __init__(self, change: Change) -> None:
        self._change = change
        uses = list(self._uses())
        found: dict[Form, list[int]] = {}
        for number, (use, level) in enumerate(product(uses, Level)):
            for form in self._fill(use, level):
                found.setdefault(form, []).append(number)
        numbers: dict[tuple[int, ...], int] = {}
        self._bits = {form: 1 << numbers.setdefault(tuple(each), len(numbers)) for form, each in found.items()}
        #: How many bits there are.
        self.width = len(numbers)

    def sent(self, event: str, which: Which) -> int:
        """Return the bit of an event that a release sends; 0 where it fills no slot."""
        return self._bits.get(self._form(event, which), 0)

    def filling(self, use: Use, level: Level) -> int:
        """Return the bits of the forms that fill a slot, at this level or a more certain one."""
        mask = 0
        for form in self._fill(use, level):
            mask |= self._bits.get(form, 0)
        return mask

    def nudging(self, use: Use) -> list[str]:
        """Return the places of the steps whose success, sent by the old release, fills a slot as long as they stand."""
        which, place, undoing, slot = use
        if which is Which.OLD:
            return []
        service = self._change.new.steps[place].service
        nudged = [event for event in slot if self._is_nudged(place, event, undoing=undoing)]
        read = [each for each in nudged if not self._change.faults(each, Which.OLD, service, Which.NEW)]
        return [step.place for step in self._change.old.graph.steps if step.success in read]

    def _form(self, event: str, which: Which) -> Form:
        is_one = self._change.is_one_form(event) and event not in self._newly_consumed
        return event, Which.OLD if is_one else which

    @cached_property
    def _newly_consumed(self) -> set[str]:
        """The events that the new release takes somewhere where the old one does not."""
        release = self._change.new
        uses = [use for use in self._uses() if use[0] is Which.NEW]
        found = {(place, undoing, event) for _, place, undoing, slot in uses for event in slot}
        return {
            event for place, undoing, event in found
            if event not in release.outside and not self._was_taken(place, event, undoing=undoing)
        }  # fmt: skip

    def _is_nudged(self, place: str, event: str, *, undoing: bool) -> bool:
        """Whether a step's success comes to a slot only as a nudge."""
        successes = {step.success for step in self._change.old.graph.steps}
        return event in successes and not self._was_taken(place, event, undoing=undoing) and self._is_sent_again(event)

    def _uses(self) -> Iterator[Use]:
        for which in Which:
            release = self._change.release(which)
            for place, undoing in product(release.steps, (False, True)):
                slots = release.slots(place, undoing=undoing)
                yield from ((which, place, undoing, slot) for slot in slots)

    def _fill(self, use: Use, level: Level) -> Iterable[Form]:
        for event, sent in product(use[3], Which):
            if self._form(event, sent) == (event, sent) and self._level(use, event, sent) <= level:
                yield event, sent

    def _level(self, use: Use, event: str, sent: Which) -> int:
        """Return the level at which a form fills a slot; beyond all where it never does."""
        which, place, undoing, _ = use
        change, is_kept = self._change, self._was_taken(place, event, undoing=undoing)
        if which is sent:  # a release by itself is checked elsewhere
            return Level.CERTAIN
        never = len(Level)
        if which is Which.NEW and self._is_nudged(place, event, undoing=undoing):
            return never if not change.faults(event, sent, change.new.steps[place].service, which) else Level.POSSIBLE
        gathered = Level.GATHERED if which is Which.NEW and is_kept and not undoing else never
        faults = change.faults(event, sent, change.release(which).steps[place].service, which)
        if any(each.is_certain for each in faults):
            return gathered
        comes = which is Which.OLD or is_kept or self._is_sent_again(event)
        return Level.CERTAIN if comes and not faults else Level.POSSIBLE

    def _was_taken(self, place: str, event: str, *, undoing: bool) -> bool:
        """Whether the old release consumes the event at the same place: it has come there, or waits in the queue."""
        return any(event in slot for slot in self._change.old.slots(place, undoing=undoing))

    def _is_sent_again(self, event: str) -> bool:
        """Whether an event of the old release is nudged by the new one, so that a new consumer receives it, too.

        What comes from outside is sent once, and a service nudges only the events that it declares.
        """
        emitters = [self._change.new.contracts.get(each) for each in self._change.old.emitters(event)]
        return any(each and event in {one.name for one in each.emitted()} for each in emitters)
