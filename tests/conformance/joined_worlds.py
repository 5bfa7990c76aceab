"""Sagas with joins in the simulation: one is started, refused, aborted or delayed, and then it is all or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.example_sagas import approval, conference, parallel_trip
from tests.example_sagas.travel import Script
from toolkit import Event, Saga, Service, Settings
from toolkit.declaration.contract import Contract
from toolkit.declaration.events import AbortRequested
from toolkit.ids import derived_id
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.persistence.schema import as_utc
from toolkit.protocol.invariants import violations_of
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.timeline import merge
from toolkit.testing.simulation.simulation import Simulation, simulation

SAGA_ID = "joined-1"
#: The order in which copies of one message reach the services.
ARRIVALS: dict[str, Callable[[list], list]] = {"forwards": list, "backwards": lambda parcels: parcels[::-1]}
#: More moments than any of these sagas has; beyond it something goes in circles.
_MOST_MOMENTS = 300


@dataclass(frozen=True, slots=True)
class Joined:
    """A saga with joins: its services by a script, its steps, and the step whose success ends it.

    - `answers`: the events from outside that it needs beside its starting event.
    """

    saga: Saga
    declare: Callable[[Script], list[Service]]
    steps: Sequence[str]
    last: str
    patience: timedelta
    answers: tuple[Event, ...] = ()

    def start(self) -> Event:
        """Return the event that starts it."""
        return self.saga.starts_with.model_validate({self.saga.id_field: SAGA_ID})


SAGAS = {
    "trip": Joined(
        parallel_trip.holiday_saga, parallel_trip.services, parallel_trip.STEPS, "take_payment", parallel_trip.PATIENCE
    ),
    "external trip": Joined(
        parallel_trip.holiday_saga,
        lambda script: parallel_trip.services(script, is_external=True),
        parallel_trip.STEPS,
        "take_payment",
        parallel_trip.PATIENCE,
    ),
    "diamond": Joined(
        conference.conference_saga, conference.services, conference.STEPS, "print_programme", conference.PATIENCE
    ),
    "external diamond": Joined(
        conference.conference_saga,
        lambda script: conference.services(script, is_external=True),
        conference.STEPS,
        "print_programme",
        conference.PATIENCE,
    ),
}
#: The saga that waits for an officer's answer.
ANSWERED = {
    "purchase": Joined(
        approval.purchase_saga,
        approval.services,
        ("quote", "decide", "order"),
        "order",
        approval.PATIENCE,
        answers=(approval.Approved(purchase_id=SAGA_ID),),
    ),
}


@contextmanager
def world_of(joined: Joined, folder: Path, script: Script | None = None) -> Iterator[Simulation]:
    """Run the saga's services in this folder."""
    settings = Settings(
        data_dir=folder,
        relay_poll=timedelta(minutes=1),
        watch_every=timedelta(minutes=1),
        abort_after=timedelta(days=1),
        overdue_after=timedelta(hours=12),
    )
    with simulation(joined.declare(script or Script()), settings) as world:
        yield world


def started(world: Simulation, joined: Joined) -> None:
    """Send the event that starts the saga, and its answers."""
    for event in (joined.start(), *joined.answers):
        world.wire.hold(message(world, joined, event))


def settled(
    world: Simulation,
    *,
    pick: Callable[[list], Any] = lambda waiting: waiting[0],
    at: Callable[[int], bool] | None = None,
) -> None:
    """Deliver all messages, and let time pass where none waits, until nothing is left; `at` is called before each."""
    for moment in range(_MOST_MOMENTS):
        if at and at(moment):
            return
        if world.wire.waiting:
            world.deliver(pick(world.wire.waiting))
        elif not world.is_quiet():
            world.advance(timedelta(seconds=20))
        else:
            return
    raise AssertionError("the saga goes in circles")


def abort(world: Simulation, joined: Joined, arrival: Callable[[list], list] = list) -> None:
    """Let an abort arrive everywhere."""
    request = AbortRequested(saga_type=joined.saga.name, saga_id=SAGA_ID, reason="the customer has changed her mind")
    for parcel in arrival(world.wire.hold(message(world, joined, request))):
        world.deliver(parcel)


def message(
    world: Simulation, joined: Joined, event: Event, *, event_id: str = "", at: datetime | None = None
) -> WireMessage:
    """Return an event of the saga as its owner sends it."""
    kind = type(event)
    known = event_id or derived_id(joined.saga.name, SAGA_ID, kind.__name__)
    occurred_at = at or world.clock.now()
    return Envelope.of(kind, event_id=known, saga=(joined.saga.name, SAGA_ID), occurred_at=occurred_at).carry(event)


def moves(world: Simulation, *steps: str) -> list[sqlite3.Row]:
    """Return the entries of all services that moved a step; of these steps only, if any is named."""
    query = "SELECT * FROM saga_log WHERE position IS NOT NULL ORDER BY id"
    rows = [entry for name in world.files for entry in world.rows(name, query)]
    return [entry for entry in rows if not steps or entry["step"] in steps]


def states(world: Simulation, step: str) -> list[str]:
    """Return the states that a step went through."""
    return [entry["to_state"] for entry in moves(world, step)]


def logs(world: Simulation) -> dict[str, list[str]]:
    """Return the states that each step went through, without the steps that have none."""
    found: dict[str, list[str]] = {}
    for entry in moves(world):
        found.setdefault(entry["step"], []).append(entry["to_state"])
    return found


def effects(world: Simulation, service: str) -> list[str]:
    """Return what a service's steps have written."""
    return [row["what"] for row in world.rows(service, "SELECT what FROM effects ORDER BY id")]


def timeline(world: Simulation) -> list[LogEntry]:
    """Return the entries of all services in one causal order."""
    logs = [world.rows(name, "SELECT * FROM saga_log ORDER BY id") for name in world.files]
    return merge([LogEntry.of(dict(row) | {"at": as_utc(row["at"])}) for row in rows] for rows in logs if rows)


def assert_all_or_nothing(world: Simulation, joined: Joined) -> bool:
    """Check every invariant, and that nothing is left over; return whether the saga completed."""
    services = world.processes
    consumed = {
        event.name
        for each in joined.declare(Script())
        if each.name in services
        for event in Contract.of(each).consumed()
    }
    answers = {type(event).__name__ for event in joined.answers}
    found = violations_of(SAGA_ID, timeline(world), consumed=consumed, answers=answers)
    assert found == []
    for name in world.files:
        assert [tuple(row) for row in world.rows(name, "SELECT id, event_type FROM saga_outbox")] == []
        assert [tuple(row) for row in world.rows(name, "SELECT reason, error FROM saga_dead_letters")] == []
    return "completed" in states(world, joined.last)
