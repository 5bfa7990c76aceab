"""The gate of a join: which slot an event fills, and which slots are still empty.

A join is a step or a compensation with several event parameters; each is a slot that one event fills. Pure rules, no
I/O: the events that have arrived come from the join's stream in the saga log. Each arrival takes the next position of
the stream, never a key of its slot: so two replicas that fill two slots at once collide, and the loser reads again.
With a key for each slot, both would find the other's slot empty, and the join would never run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class GatheredEvent:
    """An event that fills a slot, as the log keeps it."""

    event_id: str
    event_type: str
    version: int | None
    body: str
    traceparent: str | None = None


class Fill(StrEnum):
    """What an arriving event does to a gate."""

    ONE = "one"
    """It fills a slot, and others are still empty."""
    LAST = "last"
    """It fills the last empty slot."""
    DUPLICATE = "duplicate"
    """It has filled its slot before."""
    SURPLUS = "surplus"
    """Another event has filled its slot before."""


class Gate:
    """The slots of one join; `slots` has the names of the events that fill each."""

    def __init__(self, slots: Mapping[str, Collection[str]]) -> None:
        self._slots = {name: tuple(events) for name, events in slots.items()}
        self._slot_of = {event: name for name, events in slots.items() for event in events}

    def fill(self, gathered: Iterable[GatheredEvent], *, event_id: str, event_type: str) -> Fill:
        """Return what this event does, after those that have been gathered."""
        filled = self.filled(gathered)
        if any(event.event_id == event_id for event in filled.values()):
            return Fill.DUPLICATE
        if self._slot_of[event_type] in filled:
            return Fill.SURPLUS
        return Fill.LAST if len(filled) + 1 == len(self._slots) else Fill.ONE

    def is_full(self, gathered: Iterable[GatheredEvent]) -> bool:
        """Whether each slot is filled."""
        return len(self.filled(gathered)) == len(self._slots)

    def filled(self, gathered: Iterable[GatheredEvent]) -> dict[str, GatheredEvent]:
        """Return the event in each filled slot; one that this release does not take fills none."""
        filled: dict[str, GatheredEvent] = {}
        for event in gathered:
            if (slot := self._slot_of.get(event.event_type)) is not None:
                filled.setdefault(slot, event)
        return filled

    def lacks_only(self, answers: Collection[str], event_types: Iterable[str]) -> bool:
        """Whether each empty slot, of which there is one at least, takes an answer: then the question is open.

        `event_types` are those of the gathered events. While a slot waits for another event there is nothing to decide.
        """
        empty = self.empty(event_types)
        return bool(empty) and all(not set(answers).isdisjoint(events) for events in empty.values())

    def waits_for(self, event_types: Iterable[str]) -> str:
        """Return the empty slots in words, by the types of the gathered events: "CarBooked (car)"."""
        return ", ".join(f"{' or '.join(events)} ({name})" for name, events in self.empty(event_types).items())

    def empty(self, event_types: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return the events of each empty slot, by the types of the gathered events."""
        filled = {self._slot_of.get(event_type) for event_type in event_types}
        return {name: events for name, events in self._slots.items() if name not in filled}

    def rivals(self, event_type: str) -> tuple[str, ...]:
        """Return the events of which one fills this event's slot, the event itself among them."""
        return self._slots[self._slot_of[event_type]]
