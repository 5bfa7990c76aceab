"""What befalls whom, and when, and for how long: all of it from a seed, so that the seed replays it."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.end_to_end.placed_orders import SERVICES


class Fault(StrEnum):
    """The classes of faults."""

    KILLED = "process killed (SIGKILL)"
    ALL_KILLED = "all replicas of a service killed (SIGKILL)"
    STOPPED = "process stopped and continued (SIGSTOP)"
    ROLLED = "replicas restarted one after the other (SIGTERM)"
    RELEASED = "replicas of one release replaced by those of another"
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
    QUERY_CANCELLED = "a step's query cancelled"
    QUERY_ENDED = "the database session ended under a step's query"
    TABLE_LOCKED = "a table locked that steps need"
    LOG_REVOKED = "rights on the saga log revoked"
    OUTBOX_REVOKED = "rights on the outbox revoked"
    LETTERS_REVOKED = "rights on the dead letters revoked"
    OWN_REVOKED = "rights on a table of the service's own revoked"
    ENDS_LOST = "SagaEnded lost"
    ABORTS_LOST = "AbortRequested lost"
    CANCELLED_ITSELF = "a step lets CancelledError out"
    CANCELLED_OUTSIDE = "an external step lets CancelledError out"
    ENDED_ITS_SESSION = "a step ends its own database session"
    EMITTED_LARGE = "a step emits an event that is too large"
    EMITTED_UNLIKE = "a step emits an event that is another one in JSON"
    EMITTED_STRANGE = "a step emits another saga's id"
    KILLED_ITSELF = "a message kills its process (SIGKILL)"
    UNREADABLE = "a message that is not JSON"
    BAD_ID = "an id that no saga can have"
    DOUBLED = "messages doubled"
    SHUFFLED = "messages out of order"
    CROSSED = "sagas of another type under the same ids"


#: What goes on all the time, and is no blow.
STEADY = (Fault.DOUBLED, Fault.SHUFFLED, Fault.CROSSED)
#: The faults of each lane, and how often one of them is drawn as against the others.
KILLS = {Fault.KILLED: 8, Fault.ALL_KILLED: 1}
PROCESS_FAULTS = {Fault.STOPPED: 3, Fault.ROLLED: 1, Fault.RELEASED: 1}
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
QUERY_FAULTS = {Fault.QUERY_CANCELLED: 2, Fault.QUERY_ENDED: 2, Fault.TABLE_LOCKED: 1}
RIGHTS_FAULTS = {Fault.LOG_REVOKED: 2, Fault.OUTBOX_REVOKED: 2, Fault.LETTERS_REVOKED: 1, Fault.OWN_REVOKED: 1}
CONTROL_FAULTS = {Fault.ENDS_LOST: 2, Fault.ABORTS_LOST: 1}
#: A message that kills its process does so until the broker gives it up: seldom, since each time costs a start.
POISON = {
    Fault.CANCELLED_ITSELF: 4,
    Fault.CANCELLED_OUTSIDE: 4,
    Fault.ENDED_ITS_SESSION: 4,
    Fault.EMITTED_LARGE: 4,
    Fault.EMITTED_UNLIKE: 4,
    Fault.EMITTED_STRANGE: 4,
    Fault.KILLED_ITSELF: 3,
    Fault.UNREADABLE: 4,
    Fault.BAD_ID: 4,
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
    Fault.TABLE_LOCKED: (1.0, 15.0),
    **dict.fromkeys(RIGHTS_FAULTS, (3.0, 10.0)),
    Fault.ENDS_LOST: (1.0, 8.0),
    Fault.ABORTS_LOST: (1.0, 4.0),
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
    """Lanes of blows that fall at the same time, each its own in order."""

    seed: int
    lanes: dict[str, Sequence[Blow]]

    @property
    def faults(self) -> set[Fault]:
        """The classes of faults that it holds."""
        return {blow.fault for lane in self.lanes.values() for blow in lane}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything; `span` is the time over which the blows are spread, `longest` bounds each, in seconds.

    After `missed_after` a service misses the end of a saga, and asks for it.
    """

    sagas: int
    kills: int
    pauses: int
    broker_outages: int
    database_outages: int
    queries: int
    rights: int
    controls: int
    poison: int
    span: float
    longest: float = 30.0
    missed_after: float = 180.0

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
            queries=max(4, round(24 * share)),
            rights=max(4, round(16 * share)),
            controls=max(3, round(16 * share)),
            poison=max(len(POISON), round(40 * share)),
            span=sagas / rate,
        )


def plan(seed: int, size: Size, *, only: Collection[Fault] = tuple(Fault)) -> Plan:
    """Return the plan of this seed; with `only`, of these classes of faults alone."""
    lanes = {
        "kills": (KILLS, size.kills),
        "processes": (PROCESS_FAULTS, size.pauses),
        "broker": (BROKER_FAULTS, size.broker_outages),
        "database": (DATABASE_FAULTS, size.database_outages),
        "queries": (QUERY_FAULTS, size.queries),
        "rights": (RIGHTS_FAULTS, size.rights),
        "controls": (CONTROL_FAULTS, size.controls),
        "poison": (POISON, size.poison),
    }
    drawn = {name: _lane(random.Random(f"{seed}-{name}"), *lane, size) for name, lane in lanes.items()}
    return Plan(seed=seed, lanes={name: [blow for blow in lane if blow.fault in only] for name, lane in drawn.items()})


def _lane(dice: random.Random, faults: dict[Fault, int], count: int, size: Size) -> list[Blow]:
    """Return so many blows, or one of each class if that is more, spread over the time."""
    drawn = [*faults, *dice.choices(list(faults), weights=list(faults.values()), k=max(0, count - len(faults)))]
    dice.shuffle(drawn)
    return [_blow(fault, size.span / len(drawn), size.longest, dice) for fault in drawn]


def _blow(fault: Fault, pause: float, longest: float, dice: random.Random) -> Blow:
    lasts = min(longest, dice.uniform(*_LASTS.get(fault, (0.0, 0.0))))
    after = max(0.5, dice.uniform(0.5, 1.5) * pause - lasts)
    return Blow(fault, round(after, 2), dice.choice(SERVICES), round(lasts, 2))
