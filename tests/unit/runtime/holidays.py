"""A replica of the payment service that joins three bookings, and the bookings as messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import text

from tests.example_sagas import conference, parallel_trip
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.example_sagas.parallel_trip import CarBooked, FlightBooked, RoomBooked
from tests.example_sagas.travel import Script
from toolkit import Event
from toolkit.ids import derived_id
from toolkit.messaging.envelope import Message
from toolkit.observability.tracing import Tracing
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

ROOM, FLIGHT, CAR = (
    RoomBooked(trip_id="trip-1", price=300),
    FlightBooked(trip_id="trip-1", price=200),
    CarBooked(trip_id="trip-1", price=50),
)


async def payments(
    database: Database, script: Script, clock: ManualClock, *, is_external: bool = False, tracing: Tracing | None = None
) -> Branch:
    """Create the tables, and return a replica of the payment service."""
    services = parallel_trip.services(script, is_external=is_external)
    service = next(each for each in services if each.name == "payment")
    assert service.tables is not None
    await database.create_tables(service.tables)
    return Branch(service, database, resources={Script: script}, clock=clock, tracing=tracing)


async def venues(database: Database, script: Script, clock: ManualClock, *, is_external: bool = False) -> Branch:
    """Create the tables, and return a replica of the service whose compensation joins."""
    services = conference.services(script, is_external=is_external)
    service = next(each for each in services if each.name == "venue")
    assert service.tables is not None
    await database.create_tables(service.tables)
    return Branch(service, database, resources={Script: script}, clock=clock)


def booking(event: Event, clock: ManualClock, *, at: datetime | None = None, **facts: Any) -> Message:
    """Return an event of the trip as a received message."""
    kind = type(event).__name__
    known = {"event_id": derived_id("holiday", "trip-1", kind), "saga_id": "trip-1", "saga_type": "holiday"}
    return message_of(event, at=at or clock.now(), **(known | facts))


def dropout(event: Event, clock: ManualClock, **facts: Any) -> Message:
    """Return an event of the conference as a received message."""
    kind = type(event).__name__
    known = {"event_id": derived_id("conference", "fair", kind), "saga_id": "fair", "saga_type": "conference"}
    return message_of(event, at=clock.now(), **(known | facts))


async def taken(branch: Branch, *messages: Message) -> None:
    """Execute these messages as one batch, and make the external calls that follow."""
    for calls in await branch.executor.execute(messages):
        for call in calls:
            await branch.external_calls.run(call)


async def paid(database: Database) -> list[str]:
    """Return the committed effects."""
    async with database.reading() as connection:
        return list((await connection.execute(text("SELECT what FROM effects ORDER BY id"))).scalars())


async def timers(database: Database) -> list[tuple[str, str]]:
    """Return the ids and the event types of the timers in the outbox."""
    query = text("SELECT id, event_type FROM saga_outbox WHERE id LIKE 'timer:%' ORDER BY id")
    async with database.reading() as connection:
        return [(row.id, row.event_type) for row in await connection.execute(query)]
