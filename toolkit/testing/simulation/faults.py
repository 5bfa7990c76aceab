"""The faults of a simulated run: what each does to the world, and how a seed draws them.

A fault happens at a moment: the number of a delivery, counted from 1. So a run with one fault less is the same run up
to that fault, and a failure can be shrunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Protocol

from toolkit import failpoints
from toolkit.testing.outside_system import Outcome
from toolkit.testing.simulation.simulation import Simulation
from toolkit.testing.simulation.wire import STUMBLES, Parcel

#: The failpoints that a simulated process passes; `acked` belongs to the brokers' transports.
_POINTS = tuple(each for each in (*failpoints.HANDLER, *failpoints.RELAY) if each != "acked")
#: A process passes each failpoint a few times in a saga.
_MOST_TIMES = 2
_DELAYS = (timedelta(milliseconds=300), timedelta(seconds=3), timedelta(seconds=20), timedelta(minutes=2))
_JUMPS = tuple(
    sign * each for each in (timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=10)) for sign in (-1, 1)
)
_OUTCOMES = tuple(each for each in Outcome if each not in (Outcome.SUCCEEDS, Outcome.REFUSES))


@dataclass(slots=True)
class Moment:
    """One delivery of a run, as faults change it before it takes place.

    - `picked`: the place of the message in the queue of waiting ones.
    - `many`: how many messages of its service are delivered at once.
    """

    world: Simulation
    picked: int = 0
    many: int = 1
    is_acknowledged: bool = True
    delay: timedelta | None = None


class Fault(Protocol):
    """Something that goes wrong at a moment of a run."""

    @property
    def at(self) -> int:
        """The moment."""
        ...

    def happen(self, moment: Moment) -> None:
        """Change the world, or the delivery of this moment."""
        ...


@dataclass(frozen=True, slots=True)
class Crash:
    """A process is killed, and restarted."""

    at: int
    service: str

    def happen(self, moment: Moment) -> None:
        """Kill it."""
        moment.world.crash(self.service)

    def __str__(self) -> str:
        return f"{self.service} is killed"


@dataclass(frozen=True, slots=True)
class FailpointCrash:
    """A process kills itself when it reaches a failpoint for so many times from this moment on."""

    at: int
    service: str
    point: str
    times: int

    def happen(self, moment: Moment) -> None:
        """Arm the failpoint."""
        moment.world.crash_at(self.service, self.point, self.times)

    def __str__(self) -> str:
        nth = "next" if self.times == 1 else f"{self.times}th"
        return f"{self.service} kills itself at its {nth} {self.point}"


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A message that was sent before comes again."""

    at: int
    pick: int

    def happen(self, moment: Moment) -> None:
        """Put a copy into its queue."""
        wire = moment.world.wire
        if wire.seen:
            original = wire.seen[self.pick % len(wire.seen)]
            wire.waiting.append(Parcel(original.service, original.message))

    def __str__(self) -> str:
        return f"message {self.pick} of those sent so far comes again"


@dataclass(frozen=True, slots=True)
class LostAcknowledgement:
    """The message is delivered, and its acknowledgement is lost: it comes again."""

    at: int

    def happen(self, moment: Moment) -> None:
        """Lose the acknowledgement."""
        moment.is_acknowledged = False

    def __str__(self) -> str:
        return "the acknowledgement is lost"


@dataclass(frozen=True, slots=True)
class Reordering:
    """A later message is delivered first, together with others of its service."""

    at: int
    pick: int
    many: int

    def happen(self, moment: Moment) -> None:
        """Pick another message."""
        moment.picked, moment.many = self.pick, self.many

    def __str__(self) -> str:
        return f"message {self.pick} of those that wait comes first, {self.many} at once"


@dataclass(frozen=True, slots=True)
class Delay:
    """A message is held back for a while."""

    at: int
    by: timedelta

    def happen(self, moment: Moment) -> None:
        """Hold it back."""
        moment.delay = self.by

    def __str__(self) -> str:
        return f"the message is delayed by {self.by}"


@dataclass(frozen=True, slots=True)
class ClockJump:
    """A service's clock jumps."""

    at: int
    service: str
    by: timedelta

    def happen(self, moment: Moment) -> None:
        """Move its clock."""
        moment.world.clocks[self.service].by += self.by

    def __str__(self) -> str:
        direction = "back" if self.by < timedelta(0) else "ahead"
        return f"the clock of {self.service} jumps {abs(self.by)} {direction}"


@dataclass(frozen=True, slots=True)
class Stumble:
    """A publish is lost, or its confirm is lost or late."""

    at: int
    kind: str

    def happen(self, moment: Moment) -> None:
        """Let the next publish go wrong."""
        moment.world.wire.stumbles.append(self.kind)

    def __str__(self) -> str:
        return f"the next publish is {self.kind}"


@dataclass(frozen=True, slots=True)
class OutsideFailure:
    """A call of an outside system fails; `at` is the number of the call, over all operations."""

    at: int
    outcome: Outcome

    def happen(self, moment: Moment) -> None:
        """Do nothing: the system follows its script, which the run has written before."""

    def __str__(self) -> str:
        return f"call {self.at} of an outside system {self.outcome}"


#: The kinds of faults, by the name under which a test allows them.
KINDS: dict[str, Callable[[Random, int, Sequence[str]], Fault]] = {
    "crashes": lambda random, at, services: (
        Crash(at, random.choice(services))
        if random.random() < 0.25
        else FailpointCrash(at, random.choice(services), random.choice(_POINTS), random.randint(1, _MOST_TIMES))
    ),
    "duplicates": lambda random, at, _: (
        LostAcknowledgement(at) if random.random() < 0.3 else Duplicate(at, random.randint(0, 20))
    ),
    "reordering": lambda random, at, _: Reordering(at, random.randint(0, 5), random.randint(1, 3)),
    "delays": lambda random, at, _: Delay(at, random.choice(_DELAYS)),
    "clock jumps": lambda random, at, services: ClockJump(at, random.choice(services), random.choice(_JUMPS)),
    "publishing": lambda random, at, _: Stumble(at, random.choice(STUMBLES)),
    "outside": lambda random, at, _: OutsideFailure(1 + at % 6, random.choice(_OUTCOMES)),
}


def draw(
    random: Random, *, services: Sequence[str], kinds: Sequence[str], most: int, moments: int
) -> tuple[Fault, ...]:
    """Return up to `most` faults of these kinds, in the order of their moments; crashes are drawn most often."""
    weighted = [kind for kind in kinds for _ in range(3 if kind == "crashes" else 1)]
    drawn = (random.choice(weighted) for _ in range(random.randint(0, most)))
    faults = [KINDS[kind](random, random.randint(1, moments), services) for kind in drawn]
    return tuple(sorted(faults, key=lambda each: each.at))
