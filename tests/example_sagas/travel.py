"""A saga for tests: a trip books a room, a flight (an external step) and a ticket.

The test scripts each step: it succeeds unless the script has another line for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import ConfigDict
from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession

from toolkit import Event, IdempotencyKey, Participant, Refusal, RetryPolicy, Saga, SagaId, Service, Settings

E = TypeVar("E", bound=Event)


class TripRequested(Event, owner="agency"):
    model_config = ConfigDict(json_schema_extra={"examples": [{"trip_id": "trip-1"}]})

    trip_id: SagaId
    passenger: str = "Ada"


class RoomBooked(Event, owner="hotel"):
    trip_id: SagaId
    room: str = ""


class RoomRefused(Refusal, owner="hotel"):
    trip_id: SagaId


class RoomCancelled(Event, owner="hotel"):
    trip_id: SagaId
    reason: str = ""


class FlightBooked(Event, owner="flight"):
    trip_id: SagaId
    seat: str = ""


class FlightRefused(Refusal, owner="flight"):
    trip_id: SagaId


class FlightCancelled(Event, owner="flight"):
    trip_id: SagaId
    reason: str = ""


class TicketIssued(Event, owner="desk", optional=True):
    trip_id: SagaId


class TicketRefused(Refusal, owner="desk"):
    trip_id: SagaId


class TripFailed(Event, owner="desk", optional=True):
    trip_id: SagaId
    reason: str = ""


trip_saga = Saga(
    name="trip", id_field="trip_id", starts_with=TripRequested, completes_with=TicketIssued, fails_with=TripFailed
)


class Script:
    """The planned behaviour of the steps, by name and call; and the airline's bookings and voids."""

    def __init__(self) -> None:
        self._lines: dict[str, list[Any]] = {}
        self._rules: dict[tuple[str, str], Any] = {}
        self.changes: dict[str, dict[str, Any]] = {}
        self.calls: Counter[str] = Counter()
        self.booked: set[str] = set()
        self.voided: set[str] = set()

    def plan(self, step: str, *lines: Any) -> None:
        """Plan the next calls of a step: "refuse", an exception to raise, or a callable that may return "refuse"."""
        self._lines.setdefault(step, []).extend(lines)

    def always(self, step: str, line: Any, *trips: str) -> None:
        """Plan all calls of a step for these trips: a batch may repeat a call."""
        self._rules.update({(step, trip): line for trip in trips})

    async def play(self, step: str, trip: str) -> bool:
        """Play the next planned line; return whether the step refuses this trip."""
        self.calls[step] += 1
        return await self._act(self._rules.get((step, trip))) or await self._play(step)

    async def answer(self, step: str) -> None:
        """Play the line for the time between the outside effect and its answer, when a step can't refuse any more."""
        await self._play(f"{step} answers")

    def changed(self, step: str, event: E) -> E:
        """Return a step's event with the fields in `changes`, without validation."""
        return event.model_copy(update=self.changes.get(step))

    def clear(self) -> None:
        """Delete all plans: from here on everything succeeds."""
        self._lines.clear()
        self._rules.clear()

    async def _play(self, step: str) -> bool:
        return await self._act(self._lines[step].pop(0) if self._lines.get(step) else None)

    async def _act(self, line: Any) -> bool:
        if isinstance(line, BaseException):
            raise line
        if callable(line):
            line = await line()
        return line == "refuse"


def services(script: Script) -> list[Service]:
    """Return the three services, which follow this script."""

    @asynccontextmanager
    async def the_script(_: Settings) -> AsyncIterator[Script]:
        yield script

    return [
        Service(name=name, participants=[participant], tables=effects.metadata, provides={Script: the_script})
        for name, (participant, effects) in {"hotel": _hotel(), "flight": _flight(), "desk": _desk()}.items()
    ]


#: Quick, so that tests are; two retries, then spent.
QUICK = RetryPolicy(attempts=3, first_delay=timedelta(milliseconds=20), ceiling=timedelta(milliseconds=50))


def effects_table() -> Table:
    """A table without constraints, so that a doubled effect shows."""
    return Table(
        "effects",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("trip_id", String),
        Column("what", String),
    )


async def write(session: AsyncSession, effects: Table, trip_id: str, what: str) -> None:
    """Write a step's effect."""
    connection = await session.connection()
    await connection.execute(insert(effects).values(trip_id=trip_id, what=what))


def _hotel() -> tuple[Participant, Table]:
    hotel = Participant("hotel", saga=trip_saga, retry=QUICK)
    effects = effects_table()

    @hotel.step(timeout=timedelta(minutes=1))
    async def book_room(event: TripRequested, session: AsyncSession, script: Script) -> RoomBooked | RoomRefused:
        await write(session, effects, event.trip_id, "room booked")
        if await script.play("book_room", event.trip_id):
            return RoomRefused(trip_id=event.trip_id, reason="no room")
        return script.changed("book_room", RoomBooked(trip_id=event.trip_id, room="12"))

    @hotel.compensation(of=book_room)
    async def cancel_room(
        event: FlightRefused | FlightCancelled, original: RoomBooked, session: AsyncSession, script: Script
    ) -> RoomCancelled:
        await write(session, effects, event.trip_id, f"room {original.room} cancelled")
        await script.play("cancel_room", event.trip_id)
        return script.changed("cancel_room", RoomCancelled(trip_id=event.trip_id, reason=event.reason))

    return hotel, effects


def _flight() -> tuple[Participant, Table]:
    flight = Participant("flight", saga=trip_saga, retry=QUICK)
    effects = effects_table()

    @flight.step(timeout=timedelta(minutes=1), external=True)
    async def book_flight(
        event: RoomBooked, session: AsyncSession, key: IdempotencyKey, script: Script
    ) -> FlightBooked | FlightRefused:
        refuses = await script.play("book_flight", event.trip_id)
        # What is booked under this key stays so, as at any provider that knows idempotency keys.
        if key in script.voided or (refuses and key not in script.booked):
            return FlightRefused(trip_id=event.trip_id, reason="fully booked")
        script.booked.add(key)
        await script.answer("book_flight")
        await write(session, effects, event.trip_id, "flight booked")
        return script.changed("book_flight", FlightBooked(trip_id=event.trip_id, seat="7A"))

    @flight.compensation(of=book_flight)
    async def cancel_flight(
        event: TicketRefused, original: FlightBooked | None, session: AsyncSession, key: IdempotencyKey, script: Script
    ) -> FlightCancelled:
        await script.play("cancel_flight", event.trip_id)
        script.booked.discard(key)
        script.voided.add(key)
        await script.answer("cancel_flight")
        await write(session, effects, event.trip_id, "flight cancelled" if original else "flight voided")
        return FlightCancelled(trip_id=event.trip_id, reason=event.reason)

    return flight, effects


def _desk() -> tuple[Participant, Table]:
    desk = Participant("desk", saga=trip_saga, retry=QUICK)
    effects = effects_table()

    @desk.step()
    async def issue_ticket(event: FlightBooked, session: AsyncSession, script: Script) -> TicketIssued | TicketRefused:
        await write(session, effects, event.trip_id, "ticket issued")
        if await script.play("issue_ticket", event.trip_id):
            return TicketRefused(trip_id=event.trip_id, reason="passport expired")
        return TicketIssued(trip_id=event.trip_id)

    @desk.step()
    async def apologize(event: RoomRefused | RoomCancelled, session: AsyncSession, script: Script) -> TripFailed:
        await script.play("apologize", event.trip_id)
        await write(session, effects, event.trip_id, "apologized")
        return TripFailed(trip_id=event.trip_id, reason=event.reason)

    return desk, effects
