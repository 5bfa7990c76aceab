"""What befalls whom, and when, and for how long: all of it from a seed, so that the seed replays it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.end_to_end.fleet import SERVICES


class Fault(StrEnum):
    """The classes of faults."""

    KILLED = "process killed (SIGKILL)"
    ALL_KILLED = "all replicas of a service killed (SIGKILL)"
    STOPPED = "process stopped and continued (SIGSTOP)"
    ROLLED = "replicas restarted one after the other (SIGTERM)"
    BROKER_RESTARTED = "broker restarted"
    BROKER_CRASHED = "broker killed and started"
    BROKER_CUT_OUT = "broker cut off, one way out"
    BROKER_CUT_BACK = "broker cut off, one way back"
    BROKER_CUT = "broker cut off, both ways"
    BROKER_FROZEN = "connections to the broker half-open"
    DATABASE_RESTARTED = "database restarted"
    DATABASE_CRASHED = "database killed and started"
    DATABASE_CUT = "database cut off, both ways"
    DATABASE_FROZEN = "connections to the database half-open"
    SESSIONS_ENDED = "database sessions ended"
    DOUBLED = "messages doubled"
    SHUFFLED = "messages out of order"


#: The faults of each lane, and how often one of them is drawn as against the others.
KILLS = {Fault.KILLED: 8, Fault.ALL_KILLED: 1}
PROCESS_FAULTS = {Fault.STOPPED: 3, Fault.ROLLED: 1}
BROKER_FAULTS = {
    Fault.BROKER_RESTARTED: 3,
    Fault.BROKER_CRASHED: 3,
    Fault.BROKER_CUT_OUT: 2,
    Fault.BROKER_CUT_BACK: 2,
    Fault.BROKER_CUT: 2,
    Fault.BROKER_FROZEN: 1,
}
DATABASE_FAULTS = {
    Fault.DATABASE_RESTARTED: 3,
    Fault.DATABASE_CRASHED: 3,
    Fault.DATABASE_CUT: 2,
    Fault.DATABASE_FROZEN: 1,
    Fault.SESSIONS_ENDED: 3,
}
#: How long a fault lasts that has an end of its own, in seconds: some cuts outlast the heartbeat, and some do not.
_LASTS = {
    Fault.KILLED: (0.0, 2.0),
    Fault.ALL_KILLED: (0.5, 3.0),
    Fault.STOPPED: (1.0, 20.0),
    Fault.BROKER_CUT_OUT: (2.0, 25.0),
    Fault.BROKER_CUT_BACK: (2.0, 25.0),
    Fault.BROKER_CUT: (2.0, 25.0),
    Fault.BROKER_FROZEN: (8.0, 30.0),
    Fault.DATABASE_CUT: (1.0, 15.0),
    Fault.DATABASE_FROZEN: (8.0, 30.0),
}


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault: `after` so many seconds from the one before, upon this service if it is one's own, for so long."""

    fault: Fault
    after: float
    service: str
    lasts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Four lanes of blows that fall at the same time, each its own in order."""

    seed: int
    lanes: dict[str, Sequence[Blow]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything; `span` is the time over which the blows are spread, `longest` bounds each, in seconds."""

    sagas: int
    kills: int
    pauses: int
    broker_outages: int
    database_outages: int
    span: float
    longest: float = 30.0

    @classmethod
    def of(cls, sagas: int, *, rate: float) -> Size:
        """Return the size for so many sagas, fed at this rate: at 20,000, what is asked of the toolkit."""
        share = sagas / 20_000
        return cls(
            sagas=sagas,
            kills=max(8, round(110 * share)),
            pauses=max(4, round(25 * share)),
            broker_outages=max(5, round(24 * share)),
            database_outages=max(5, round(24 * share)),
            span=sagas / rate,
        )


def plan(seed: int, size: Size) -> Plan:
    """Return the plan of this seed."""
    lanes = {
        "kills": (KILLS, size.kills),
        "processes": (PROCESS_FAULTS, size.pauses),
        "broker": (BROKER_FAULTS, size.broker_outages),
        "database": (DATABASE_FAULTS, size.database_outages),
    }
    return Plan(seed=seed, lanes={name: _lane(random.Random(f"{seed}-{name}"), *lanes[name], size) for name in lanes})


def _lane(dice: random.Random, faults: dict[Fault, int], count: int, size: Size) -> list[Blow]:
    """Return so many blows, or one of each class if that is more, spread over the time."""
    drawn = [*faults, *dice.choices(list(faults), weights=list(faults.values()), k=max(0, count - len(faults)))]
    dice.shuffle(drawn)
    return [_blow(fault, size.span / len(drawn), size.longest, dice) for fault in drawn]


def _blow(fault: Fault, pause: float, longest: float, dice: random.Random) -> Blow:
    lasts = min(longest, dice.uniform(*_LASTS.get(fault, (0.0, 0.0))))
    after = max(0.5, dice.uniform(0.5, 1.5) * pause - lasts)
    return Blow(fault, round(after, 2), dice.choice(SERVICES), round(lasts, 2))
