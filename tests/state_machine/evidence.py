"""The invariants of trips, checked on the committed tables and on the airline's bookings."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from toolkit.testing.simulation.simulation import Simulation

#: A second copy of the legal transitions, so that an error in the toolkit's own table shows.
LEGAL = {
    None: {"completed", "failed", "fenced", "executing"},
    "executing": {"completed", "failed", "voiding"},
    "voiding": {"failed"},
    "completed": {"compensated", "compensating", "confirmed"},
    "compensating": {"compensated"},
}
#: The effect of each step in its service's table, by the log entry that comes with it.
EFFECTS = {
    ("book_room", "completed"): "room booked",
    ("book_room", "compensated"): "room 12 cancelled",
    ("book_flight", "completed"): "flight booked",
    ("book_flight", "compensated"): "flight cancelled",
    ("issue_ticket", "completed"): "ticket issued",
    ("apologize", "completed"): "apologized",
}
#: By step, the step that must be undone first when this one is undone, or when it apologizes.
AFTER = {"book_flight": "issue_ticket", "book_room": "book_flight", "apologize": "book_room"}
UNDONE = {"failed", "fenced", "compensated"}
TIMEOUTS = {"book_room": timedelta(minutes=1), "book_flight": timedelta(minutes=1)}


class Evidence:
    """The tables of all services, read again after changes."""

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self._versions: dict[str, int] = {}
        self._logs: dict[str, list[sqlite3.Row]] = {}
        self._effects: dict[str, list[sqlite3.Row]] = {}

    def look(self) -> bool:
        """Read the tables that changed since the last call; return whether any did."""
        versions = {name: self._world.rows(name, "PRAGMA data_version")[0][0] for name in self._world.files}
        changed = [name for name, version in versions.items() if self._versions.get(name) != version]
        for name in changed:
            self._logs[name] = self._world.rows(name, "SELECT * FROM saga_log ORDER BY id")
            self._effects[name] = self._world.rows(name, "SELECT trip_id, what FROM effects")
        self._versions = versions
        return bool(changed)

    @property
    def moves(self) -> list[sqlite3.Row]:
        """All entries with a position, each service's in order."""
        return [entry for log in self._logs.values() for entry in log if entry["position"] is not None]

    @property
    def states(self) -> dict[tuple[str, str], str]:
        """The state of each step of each trip."""
        return {(entry["saga_id"], entry["step"]): entry["to_state"] for entry in self.moves}

    def effects(self, trip: str) -> Counter[str]:
        """Return the effects of a trip's steps in the tables of their services."""
        return Counter(row["what"] for rows in self._effects.values() for row in rows if row["trip_id"] == trip)

    @property
    def trips(self) -> list[str]:
        """All trips that have an entry in any service's log."""
        return list(dict.fromkeys(entry["saga_id"] for entry in self.moves))


def check_logs(evidence: Evidence) -> None:
    """Check that each step's entries have no gaps, follow from one another, and are legal transitions."""
    last: dict[tuple[str, str], sqlite3.Row] = {}
    for entry in evidence.moves:
        before = last.get(key := (entry["saga_id"], entry["step"]))
        assert entry["position"] == (before["position"] + 1 if before else 1), f"a gap: {dict(entry)}"
        assert entry["from_state"] == (before["to_state"] if before else None), f"a jump: {dict(entry)}"
        assert entry["to_state"] in LEGAL.get(entry["from_state"], ()), f"an illegal move: {dict(entry)}"
        last[key] = entry


def check_effects(evidence: Evidence) -> None:
    """Check that each step has exactly the effect that its log records, once."""
    for trip in evidence.trips:
        logged, done = Counter(_effects_of(evidence, trip)), evidence.effects(trip)
        assert done == logged, f"{trip}: the log has {logged}, the tables have {done}"
        assert max(logged.values(), default=1) == 1, f"{trip}: more than once: {logged}"


def _effects_of(evidence: Evidence, trip: str) -> Iterator[str]:
    for entry in evidence.moves:
        if entry["saga_id"] != trip:
            continue
        if effect := EFFECTS.get((entry["step"], entry["to_state"])):
            yield effect
        elif (entry["from_state"], entry["to_state"]) == ("voiding", "failed"):
            yield "flight voided"


def check_order(evidence: Evidence) -> None:
    """Check that a step is undone after its successor, and because of the successor's event."""
    states = evidence.states
    emitted = {entry["emitted_id"]: entry for entry in evidence.moves if entry["emitted_id"]}
    for entry in evidence.moves:
        trip, step = entry["saga_id"], entry["step"]
        is_compensation = entry["to_state"] in ("compensating", "compensated") or step == "apologize"
        if not is_compensation:
            continue
        later = AFTER[step]
        assert states.get((trip, later)) in UNDONE, f"{trip}: {step} before {later}: {states}"
        cause = emitted.get(entry["event_id"])
        assert cause is not None, f"{trip}: {step} ran on an uncommitted event: {dict(entry)}"
        assert (cause["saga_id"], cause["step"]) == (trip, later), f"{trip}: {step} ran after {cause['step']}"


def check_ends(evidence: Evidence) -> None:
    """Check that no trip ends twice, and that each step of a completed trip is done."""
    states = evidence.states
    for trip in evidence.trips:
        is_completed = states.get((trip, "issue_ticket")) in ("completed", "confirmed")
        is_failed = (trip, "apologize") in states
        steps = [states.get((trip, step)) for step in ("book_room", "book_flight", "issue_ticket")]
        assert not (is_completed and is_failed), f"{trip} has both ends"
        assert not is_completed or set(steps) <= {"completed", "confirmed"}, f"{trip} was completed, but {steps}"
        assert is_completed or "confirmed" not in steps, f"{trip} was confirmed before its end"


def check_causes(evidence: Evidence, from_outside: set[str]) -> None:
    """Check that each step ran on an event that a client has sent or another step has committed."""
    emitted = {entry["emitted_id"] for entry in evidence.moves} | from_outside
    for entry in evidence.moves:
        if entry["event_type"] not in ("SagaEnded", "AbortRequested"):
            assert entry["event_id"] in emitted, f"no service or client sent the event of {dict(entry)}"


def check_deadlines(evidence: Evidence, requested: Mapping[str, datetime], deadlines: Mapping[str, datetime]) -> None:
    """Check that no step starts at or past its deadline, or its trip's."""
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
    """Check that the airline holds a seat for each completed flight, and none for a flight that is undone."""
    states = evidence.states
    for trip in {*evidence.trips, *(key.partition(":")[0] for key in booked)}:
        state, is_held = states.get((trip, "book_flight")), f"trip:{trip}:book_flight" in booked
        if state in ("completed", "confirmed"):
            assert is_held, f"{trip}: {state}, and the airline holds no seat"
        elif state is None or state in UNDONE:
            assert not is_held, f"{trip}: {state}, and the airline holds a seat"


def check_all_or_nothing(evidence: Evidence, trip: str) -> None:
    """Check that a trip has ended, and that either all of its effects or none remain."""
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
