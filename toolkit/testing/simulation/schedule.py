"""What a seed stands for: the sagas that are started, and the faults that happen in their course."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from toolkit.declaration.events import Event
from toolkit.testing.simulation.faults import Fault, draw

#: A saga of a few services takes about so many deliveries, its end included.
_DELIVERIES = 10


@dataclass(frozen=True, slots=True)
class Start:
    """A saga of a run: the events that start it, from outside, and the moment at which they are sent."""

    events: tuple[Event, ...]
    at: int = 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run: its sagas, and the faults in the order of their moments."""

    seed: int
    sagas: tuple[Start, ...]
    faults: tuple[Fault, ...] = ()

    @classmethod
    def of(
        cls, seed: int, sagas: Sequence[Sequence[Event]], *, services: Sequence[str], kinds: Sequence[str], most: int
    ) -> Schedule:
        """Return the schedule of a seed: all sagas, the first one at once, and up to `most` faults of these kinds."""
        random = Random(seed)  # noqa: S311 -- the same faults for the same seed, no secret
        moments = _DELIVERIES * max(len(sagas), 1)
        faults = draw(random, services=services, kinds=kinds, most=most, moments=moments)
        starts = (Start(tuple(each), random.randint(1, moments) if place else 1) for place, each in enumerate(sagas))
        return cls(seed, tuple(starts), faults)

    def at(self, moment: int) -> list[Fault]:
        """Return the faults of a moment."""
        return [each for each in self.faults if each.at == moment]

    def smaller(self) -> Iterator[Schedule]:
        """Yield the schedules with one fault less, and then those with one saga less."""
        for place in reversed(range(len(self.faults))):
            yield replace(self, faults=self.faults[:place] + self.faults[place + 1 :])
        if len(self.sagas) > 1:
            for place in reversed(range(len(self.sagas))):
                yield replace(self, sagas=self.sagas[:place] + self.sagas[place + 1 :])
