"""The faults, their targets, times and lengths, all derived from a seed, so that the seed repeats them."""

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
    DEAD_LETTERS_REVOKED = "rights on the dead letters revoked"
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


#: The faults that go on all the time.
STEADY = (Fault.DOUBLED, Fault.SHUFFLED, Fault.CROSSED)
#: The faults of each lane, with their relative frequency.
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
RIGHTS_FAULTS = {Fault.LOG_REVOKED: 2, Fault.OUTBOX_REVOKED: 2, Fault.DEAD_LETTERS_REVOKED: 1, Fault.OWN_REVOKED: 1}
CONTROL_FAULTS = {Fault.ENDS_LOST: 2, Fault.ABORTS_LOST: 1}
#: A message that kills its process does so until it is dead-lettered: seldom, since each time costs a start.
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
#: The length of a fault, in seconds: some cuts are longer than the heartbeat, and some are not.
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
class PlannedFault:
    """One fault: `after` the previous one, on this service if it concerns one, for `lasts`; both in seconds."""

    fault: Fault
    after: float
    service: str
    lasts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Lanes of faults that run concurrently, each in its order."""

    seed: int
    lanes: dict[str, Sequence[PlannedFault]]

    @property
    def faults(self) -> set[Fault]:
        """The classes of faults in the plan."""
        return {planned.fault for lane in self.lanes.values() for planned in lane}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The numbers of a run.

    `sagas` counts those of all kinds. `span` is the time of the faults, `longest` the limit of each, in seconds.
    After `missed_after` a service asks for the missing end of a saga.
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
        """Return the size for so many sagas, at this rate; 20,000 are the toolkit's requirement."""
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


def plan(seed: int, size: Size, *, services: Sequence[str] = SERVICES, only: Collection[Fault] = tuple(Fault)) -> Plan:
    """Return the plan of this seed, for these services; with `only`, limited to these classes of faults."""
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
    drawn = {name: _lane(random.Random(f"{seed}-{name}"), *lane, size, services) for name, lane in lanes.items()}
    return Plan(seed=seed, lanes={name: [each for each in lane if each.fault in only] for name, lane in drawn.items()})


def _lane(
    dice: random.Random, faults: dict[Fault, int], count: int, size: Size, services: Sequence[str]
) -> list[PlannedFault]:
    """Return so many faults, at least one of each class, spread over the span."""
    drawn = [*faults, *dice.choices(list(faults), weights=list(faults.values()), k=max(0, count - len(faults)))]
    dice.shuffle(drawn)
    return [_planned(fault, size.span / len(drawn), size.longest, dice, services) for fault in drawn]


def _planned(fault: Fault, pause: float, longest: float, dice: random.Random, services: Sequence[str]) -> PlannedFault:
    lasts = min(longest, dice.uniform(*_LASTS.get(fault, (0.0, 0.0))))
    after = max(0.5, dice.uniform(0.5, 1.5) * pause - lasts)
    return PlannedFault(fault, round(after, 2), dice.choice(services), round(lasts, 2))
