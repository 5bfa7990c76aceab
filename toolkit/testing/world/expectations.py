"""What a test expects of one saga in a world; each failure prints the saga's timeline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NoReturn, Self

from toolkit.declaration.events import Event
from toolkit.messaging.envelope import WireMessage
from toolkit.protocol.invariants import violations_of
from toolkit.protocol.keys import SagaKey
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.timeline import Timeline
from toolkit.testing.cast import Named
from toolkit.testing.undone_order import compensations, undone_too_early, waited_for
from toolkit.testing.world.running import Evidence
from toolkit.testing.world.story import entries_of, story_of


class Expectations:
    """Compares what a saga has left with what a test expects; every method returns the object, or raises.

    - `emitted`: the events of the saga since the last `given`.
    - `from_outside`: the types of events that the test itself has published.
    - `unused`: the parts of the outside systems' scripts that no call has reached.

    Raises:
        AssertionError: something else is found; the text has the saga's timeline.
    """

    def __init__(
        self,
        saga: SagaKey,
        *,
        evidence: Mapping[str, Evidence],
        emitted: Sequence[WireMessage],
        from_outside: Collection[str],
        rows: Callable[..., list[Any]],
        now: datetime,
        unused: Sequence[str] = (),
    ) -> None:
        self._saga, self._evidence, self._now, self._unused = saga, evidence, now, unused
        self._emitted, self._from_outside, self._rows = emitted, from_outside, rows

    @property
    def entries(self) -> list[LogEntry]:
        """The saga's log entries from all services, in the order of cause and effect."""
        return entries_of(self._saga, self._evidence)

    def states(self, **expected: str | None) -> Self:
        """Expect these states of steps, by name; None of one that has not begun."""
        found = {each.step: each.to_state for each in self.entries if each.position is not None}
        wrong = [
            f"{step} is {found.get(step) or 'not begun'}, and not {state or 'not begun'}"
            for step, state in expected.items()
            if found.get(step) != state
        ]
        return self._unless(wrong)

    def completed(self) -> Self:
        """Expect that the saga has completed, and that no invariant of `saga verify` is violated."""
        return self._ended("Completed").sound()

    def failed(self, reason: str | None = None) -> Self:
        """Expect that the saga has failed, and that no invariant of `saga verify` is violated: all is undone.

        `reason`: a part of the text of a refusal.
        """
        self._ended("Failed").sound()
        reasons = [each.error for each in self.entries if each.error]
        wrong = reason is not None and not any(reason in each for each in reasons)
        return self._unless([f"no step refused for {reason!r}, but for {reasons}"] if wrong else [])

    def sound(self) -> Self:
        """Expect that no invariant of `saga verify` is violated, and that no dead letter is left."""
        found = violations_of(self._saga[1], self.entries, answers=self._from_outside)
        wrong = [*(f"{each.invariant}: {each.text}" for each in found), *undone_too_early(self.entries)]
        letters = (each for one in self._evidence.values() for each in one.dead_letters)
        wrong += [
            f"a dead letter is left in {each.service}: {each.error}"
            for each in letters
            if each.saga_id == self._saga[1]
        ]
        return self._unless(wrong)

    def emitted(self, *expected: Event | type[Event]) -> Self:
        """Expect that each of these events was emitted since the last `given`; of a type any event."""
        wrong = [f"{_shown(each)} was not emitted, but {self._names()}" for each in expected if not self._has(each)]
        return self._unless(wrong)

    def not_emitted(self, *events: Event | type[Event]) -> Self:
        """Expect that none of these events was emitted since the last `given`."""
        return self._unless([f"{_shown(each)} was emitted" for each in events if self._has(each)])

    def compensated(self, *steps: Named | Collection[Named]) -> Self:
        """Expect that exactly these steps were undone, in this order; those in a set in any order.

        The order is that of cause and effect: a step that happened to be undone later does not count as later.
        """
        entries = self.entries
        undone = {each.step: each for each in compensations(entries)}
        groups = [_names_of(each) for each in steps]
        if sorted(undone) != sorted(name for group in groups for name in group):
            return self._unless([f"undone were {', '.join(undone) or 'no steps'}; expected: {_in_words(groups)}"])
        wrong = [
            f"{later} was undone without waiting for {earlier}"
            for first, second in pairwise(groups)
            for earlier in first
            for later in second
            if not waited_for(undone[later], undone[earlier], entries)
        ]
        return self._unless(wrong)

    def rows(self, model: type[Any], *expected: Mapping[str, Any], **where: Any) -> Self:
        """Expect exactly these rows of a table, in the order of their keys: of each some columns with their values.

        `where`: only rows with these values count. Rows do not belong to a saga.
        """
        found = self._rows(model, **where)
        shown = [{name: getattr(row, name) for name in wanted} for row, wanted in zip(found, expected, strict=False)]
        fault = f"{model.__name__} has {len(found)} rows, {shown or found}; expected: {list(map(dict, expected))}"
        return self._unless([fault] if len(found) != len(expected) or shown != list(map(dict, expected)) else [])

    def _ended(self, expected: str) -> Self:
        state = Timeline(self._saga[1], self.entries).state
        return self._unless([] if state == expected else [f"the saga is {state or 'unknown'}, and not {expected}"])

    def _has(self, expected: Event | type[Event]) -> bool:
        kind = expected if isinstance(expected, type) else type(expected)
        sent = [each for each in self._emitted if each.type == kind.__name__]
        return bool(sent) if isinstance(expected, type) else any(_read(kind, each) == expected for each in sent)

    def _names(self) -> str:
        return ", ".join(str(each.type) for each in self._emitted) or "nothing"

    def _unless(self, wrong: Iterable[str]) -> Self:
        if lines := list(wrong):
            self._fail(lines)
        return self

    def _fail(self, lines: Sequence[str]) -> NoReturn:
        story = story_of(self._saga, self._evidence, self._now)
        script = [f"  not reached of the script: {each}" for each in self._unused]
        raise AssertionError("\n".join([*lines, "", story, *script]))


def _read(kind: type[Event], message: WireMessage) -> Event:
    return kind.model_validate_json(message.body)


def _shown(event: Event | type[Event]) -> str:
    return event.__name__ if isinstance(event, type) else repr(event)


def _names_of(steps: Named | Collection[Named]) -> list[str]:
    several = [steps] if isinstance(steps, str) or callable(steps) else list(steps)
    return [each if isinstance(each, str) else each.__name__ for each in several]


def _in_words(groups: Sequence[Sequence[str]]) -> str:
    return ", ".join(" and ".join(sorted(group)) for group in groups) or "nothing"
