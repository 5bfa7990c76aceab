"""A saga for tests: a trip books a room, a flight and a car at once; one payment joins them, and all is undone as one.

The test scripts each step, as in the other trip. Payment waits ten minutes, counted from the first booking.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from tests.example_sagas.travel import QUICK, Script, effects_table, write
from toolkit import Event, Participant, Refusal, Saga, SagaId, Service, Settings

#: The services, in the order of the saga.
NAMES = ("hotel", "flight", "car", "payment", "agency")
#: The steps, but for the failed end.
STEPS = ("book_room", "book_flight", "book_car", "take_payment")
#: How long the payment waits for the bookings.
PATIENCE = timedelta(minutes=10)


class HolidayWanted(Event, owner="customer"):
    trip_id: SagaId
    customer: str = "Ada"


class RoomBooked(Event, owner="hotel"):
    trip_id: SagaId
    price: int = 0


class RoomRefused(Refusal, owner="hotel"):
    trip_id: SagaId


class RoomCancelled(Event, owner="hotel"):
    trip_id: SagaId
    reason: str = ""


class FlightBooked(Event, owner="flight"):
    trip_id: SagaId
    price: int = 0


class FlightRefused(Refusal, owner="flight"):
    trip_id: SagaId


class FlightCancelled(Event, owner="flight"):
    trip_id: SagaId
    reason: str = ""


class CarBooked(Event, owner="car"):
    trip_id: SagaId
    price: int = 0


class CarRefused(Refusal, owner="car"):
    trip_id: SagaId


class CarCancelled(Event, owner="car"):
    trip_id: SagaId
    reason: str = ""


class HolidayBooked(Event, owner="payment", optional=True):
    trip_id: SagaId
    total: int = 0


class PaymentRefused(Refusal, owner="payment"):
    trip_id: SagaId


class HolidayFailed(Event, owner="agency", optional=True):
    trip_id: SagaId


holiday_saga = Saga(
    name="holiday", id_field="trip_id", starts_with=HolidayWanted, completes_with=HolidayBooked,
    fails_with=HolidayFailed,
)  # fmt: skip


def services(script: Script, *, is_external: bool = False) -> list[Service]:
    """Return the five services, which follow this script; the payment may be external."""

    @asynccontextmanager
    async def the_script(_: Settings) -> AsyncIterator[Script]:
        yield script

    parts = {
        "hotel": _hotel(),
        "flight": _flight(),
        "car": _car(),
        "payment": _payment(is_external=is_external),
        "agency": _agency(),
    }
    return [
        Service(name=name, participants=[participant], tables=effects.metadata, provides={Script: the_script})
        for name, (participant, effects) in parts.items()
    ]


def _hotel() -> tuple[Participant, Table]:
    hotel, effects = Participant("hotel", saga=holiday_saga, retry=QUICK), effects_table()

    @hotel.step(timeout=timedelta(minutes=1))
    async def book_room(event: HolidayWanted, session: AsyncSession, script: Script) -> RoomBooked | RoomRefused:
        await write(session, effects, event.trip_id, "room booked")
        if await script.play("book_room", event.trip_id):
            return RoomRefused(trip_id=event.trip_id, reason="no room")
        return script.changed("book_room", RoomBooked(trip_id=event.trip_id, price=300))

    @hotel.compensation(of=book_room)
    async def cancel_room(
        event: FlightRefused | CarRefused | PaymentRefused, original: RoomBooked, session: AsyncSession, script: Script
    ) -> RoomCancelled:
        await write(session, effects, event.trip_id, f"room for {original.price} cancelled")
        await script.play("cancel_room", event.trip_id)
        return RoomCancelled(trip_id=event.trip_id, reason=event.reason)

    return hotel, effects


def _flight() -> tuple[Participant, Table]:
    flight, effects = Participant("flight", saga=holiday_saga, retry=QUICK), effects_table()

    @flight.step(timeout=timedelta(minutes=1))
    async def book_flight(event: HolidayWanted, session: AsyncSession, script: Script) -> FlightBooked | FlightRefused:
        await write(session, effects, event.trip_id, "flight booked")
        if await script.play("book_flight", event.trip_id):
            return FlightRefused(trip_id=event.trip_id, reason="fully booked")
        return FlightBooked(trip_id=event.trip_id, price=200)

    @flight.compensation(of=book_flight)
    async def cancel_flight(
        event: RoomRefused | CarRefused | PaymentRefused, session: AsyncSession, script: Script
    ) -> FlightCancelled:
        await write(session, effects, event.trip_id, "flight cancelled")
        await script.play("cancel_flight", event.trip_id)
        return FlightCancelled(trip_id=event.trip_id, reason=event.reason)

    return flight, effects


def _car() -> tuple[Participant, Table]:
    car, effects = Participant("car", saga=holiday_saga, retry=QUICK), effects_table()

    @car.step(timeout=timedelta(minutes=1))
    async def book_car(event: HolidayWanted, session: AsyncSession, script: Script) -> CarBooked | CarRefused:
        await write(session, effects, event.trip_id, "car booked")
        if await script.play("book_car", event.trip_id):
            return CarRefused(trip_id=event.trip_id, reason="no car is left")
        return CarBooked(trip_id=event.trip_id, price=50)

    @car.compensation(of=book_car)
    async def cancel_car(
        event: RoomRefused | FlightRefused | PaymentRefused, session: AsyncSession, script: Script
    ) -> CarCancelled:
        await write(session, effects, event.trip_id, "car cancelled")
        await script.play("cancel_car", event.trip_id)
        return CarCancelled(trip_id=event.trip_id, reason=event.reason)

    return car, effects


def _payment(*, is_external: bool) -> tuple[Participant, Table]:
    payment, effects = Participant("payment", saga=holiday_saga, retry=QUICK), effects_table()

    @payment.step(timeout=PATIENCE, external=is_external)
    async def take_payment(
        room: RoomBooked, flight: FlightBooked, car: CarBooked, session: AsyncSession, script: Script
    ) -> HolidayBooked | PaymentRefused:
        is_refused = await script.play("take_payment", room.trip_id)
        total = room.price + flight.price + car.price
        await write(session, effects, room.trip_id, f"{total} paid")
        if is_refused:
            return PaymentRefused(trip_id=room.trip_id, reason="the card is declined")
        return HolidayBooked(trip_id=room.trip_id, total=total)

    return payment, effects


def _agency() -> tuple[Participant, Table]:
    agency, effects = Participant("agency", saga=holiday_saga, retry=QUICK), effects_table()

    @agency.step()
    async def call_off(
        room: RoomRefused | RoomCancelled,
        flight: FlightRefused | FlightCancelled,
        car: CarRefused | CarCancelled,
        session: AsyncSession,
        script: Script,
    ) -> HolidayFailed:
        await script.play("call_off", room.trip_id)
        await write(session, effects, room.trip_id, "called off")
        return HolidayFailed(trip_id=room.trip_id)

    return agency, effects
