"""What must hold for trips at every moment, told from the committed tables and from what the airline has seen."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from tests.simulation.simulation import Simulation

#: Written down once more, so that an error in the toolkit's own table shows.
LEGAL = {
    None: {"completed", "failed", "fenced", "executing"},
    "executing": {"completed", "failed", "voiding"},
    "voiding": {"failed"},
    "completed": {"compensated", "compensating", "confirmed"},
    "compensating": {"compensated"},
}
#: What each step leaves in its service's table of effects, by the entry that comes with it.
EFFECTS = {
    ("book_room", "completed"): "room booked",
    ("book_room", "compensated"): "room 12 cancelled",
    ("book_flight", "completed"): "flight booked",
    ("book_flight", "compensated"): "flight cancelled",
    ("issue_ticket", "completed"): "ticket issued",
    ("apologize", "completed"): "apologized",
}
#: By step, the one whose end must have come first when it is undone, or when it apologizes.
AFTER = {"book_flight": "issue_ticket", "book_room": "book_flight", "apologize": "book_room"}
UNDONE = {"failed", "fenced", "compensated"}
TIMEOUTS = {"book_room": timedelta(minutes=1), "book_flight": timedelta(minutes=1)}


class Evidence:
    """The tables of all services, read anew where they have changed."""

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self._versions: dict[str, int] = {}
        self._logs: dict[str, list[sqlite3.Row]] = {}
        self._effects: dict[str, list[sqlite3.Row]] = {}

    def look(self) -> bool:
        """Read what was committed since the last look; return whether there is anything new."""
        versions = {name: self._world.rows(name, "PRAGMA data_version")[0][0] for name in self._world.files}
        changed = [name for name, version in versions.items() if self._versions.get(name) != version]
        for name in changed:
            self._logs[name] = self._world.rows(name, "SELECT * FROM saga_log ORDER BY id")
            self._effects[name] = self._world.rows(name, "SELECT trip_id, what FROM effects")
        self._versions = versions
        return bool(changed)

    @property
    def moves(self) -> list[sqlite3.Row]:
        """All entries with a position, those of each service in its order."""
        return [entry for log in self._logs.values() for entry in log if entry["position"] is not None]

    @property
    def states(self) -> dict[tuple[str, str], str]:
        """Where each step of each trip stands."""
        return {(entry["saga_id"], entry["step"]): entry["to_state"] for entry in self.moves}

    def effects(self, trip: str) -> Counter[str]:
        """What the steps of a trip have left in the tables of their services."""
        return Counter(row["what"] for rows in self._effects.values() for row in rows if row["trip_id"] == trip)

    @property
    def trips(self) -> list[str]:
        """All trips that any service has heard of."""
        return list(dict.fromkeys(entry["saga_id"] for entry in self.moves))


def check_logs(evidence: Evidence) -> None:
    """The entries of each step are gap-free, each follows from the one before, and the transitions are legal."""
    last: dict[tuple[str, str], sqlite3.Row] = {}
    for entry in evidence.moves:
        before = last.get(key := (entry["saga_id"], entry["step"]))
        assert entry["position"] == (before["position"] + 1 if before else 1), f"a gap: {dict(entry)}"
        assert entry["from_state"] == (before["to_state"] if before else None), f"a jump: {dict(entry)}"
        assert entry["to_state"] in LEGAL.get(entry["from_state"], ()), f"an illegal move: {dict(entry)}"
        last[key] = entry


def check_effects(evidence: Evidence) -> None:
    """Each step has the effect that its log tells of, once, and none beside."""
    for trip in evidence.trips:
        told = Counter(_effects_of(evidence, trip))
        assert evidence.effects(trip) == told, f"{trip}: the log tells of {told}, done was {evidence.effects(trip)}"
        assert max(told.values(), default=1) == 1, f"{trip}: more than once: {told}"


def _effects_of(evidence: Evidence, trip: str) -> Iterator[str]:
    for entry in evidence.moves:
        if entry["saga_id"] != trip:
            continue
        if effect := EFFECTS.get((entry["step"], entry["to_state"])):
            yield effect
        elif (entry["from_state"], entry["to_state"]) == ("voiding", "failed"):
            yield "flight voided"


def check_order(evidence: Evidence) -> None:
    """Nothing is undone before what came after it is, and it is undone on account of just that."""
    states = evidence.states
    emitted = {entry["emitted_id"]: entry for entry in evidence.moves if entry["emitted_id"]}
    for entry in evidence.moves:
        trip, step = entry["saga_id"], entry["step"]
        is_way_back = entry["to_state"] in ("compensating", "compensated") or step == "apologize"
        if not is_way_back:
            continue
        later = AFTER[step]
        assert states.get((trip, later)) in UNDONE, f"{trip}: {step} before {later}: {states}"
        cause = emitted.get(entry["event_id"])
        assert cause is not None, f"{trip}: {step} took an event that nobody has committed: {dict(entry)}"
        assert (cause["saga_id"], cause["step"]) == (trip, later), f"{trip}: {step} came of {cause['step']}"


def check_ends(evidence: Evidence) -> None:
    """No trip ends twice, and none that has ended well is undone or was never begun."""
    states = evidence.states
    for trip in evidence.trips:
        is_completed = states.get((trip, "issue_ticket")) in ("completed", "confirmed")
        is_failed = (trip, "apologize") in states
        steps = [states.get((trip, step)) for step in ("book_room", "book_flight", "issue_ticket")]
        assert not (is_completed and is_failed), f"{trip} has both ends"
        assert not is_completed or set(steps) <= {"completed", "confirmed"}, f"{trip} was completed, but {steps}"
        assert is_completed or "confirmed" not in steps, f"{trip} was confirmed before its end"


def check_causes(evidence: Evidence, from_outside: set[str]) -> None:
    """Whatever a step took, a client has sent or another step has committed."""
    emitted = {entry["emitted_id"] for entry in evidence.moves} | from_outside
    for entry in evidence.moves:
        if entry["event_type"] not in ("SagaEnded", "AbortRequested"):
            assert entry["event_id"] in emitted, f"nobody sent {dict(entry)}"


def check_deadlines(evidence: Evidence, requested: Mapping[str, datetime], deadlines: Mapping[str, datetime]) -> None:
    """No step begins at or past its deadline, or that of its trip."""
    emitted = {entry["emitted_id"]: _moment(entry["at"]) for entry in evidence.moves}
    for entry in evidence.moves:
        if entry["from_state"] is not None or entry["to_state"] not in ("completed", "executing"):
            continue
        trip, step, at = entry["saga_id"], entry["step"], _moment(entry["at"])
        occurred_at = emitted.get(entry["event_id"]) or requested[trip]
        assert step not in TIMEOUTS or at < occurred_at + TIMEOUTS[step], f"{trip}: {step} ran after its timeout"
        is_bound = trip in deadlines and step != "apologize"
        assert not is_bound or at < deadlines[trip], f"{trip}: {step} ran after the trip's deadline"


def check_airline(evidence: Evidence, booked: set[str]) -> None:
    """The airline holds a seat where the flight stands completed, none where it does not, and may while it is asked."""
    states = evidence.states
    for trip in {*evidence.trips, *(key.partition(":")[0] for key in booked)}:
        state, is_held = states.get((trip, "book_flight")), f"trip:{trip}:book_flight" in booked
        if state in ("completed", "confirmed"):
            assert is_held, f"{trip}: {state}, and the airline holds no seat"
        elif state is None or state in UNDONE:
            assert not is_held, f"{trip}: {state}, and the airline holds a seat"


def check_all_or_nothing(evidence: Evidence, trip: str) -> None:
    """A trip has ended, and either all of it was done or nothing is left of it."""
    states = {step: state for (of, step), state in evidence.states.items() if of == trip}
    effects = set(evidence.effects(trip))
    if states.get("apologize") == "completed":
        left = effects - {"apologized", "flight voided"}
        pairs = ({"room booked", "room 12 cancelled"}, {"flight booked", "flight cancelled"})
        assert all(left & pair in (set(), pair) for pair in pairs), f"{trip} failed, and left {effects}"
        assert states.get("book_room") in UNDONE, f"{trip} failed, but {states}"
        assert states.get("book_flight") in {*UNDONE, None}, f"{trip} failed, but {states}"
    else:
        assert set(states.values()) == {"confirmed"}, f"{trip} has not ended everywhere: {states}"
        assert effects == {"room booked", "flight booked", "ticket issued"}, f"{trip} was completed with {effects}"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
