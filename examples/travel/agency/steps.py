"""The agency in the trip saga: both of its steps are joins, which run once each of their events is there.

The payment ends the saga, so nothing has to undo it: there is no compensation.
"""

from __future__ import annotations

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from examples.travel.agency.models import Account, Payment
from examples.travel.events import (
    CarBooked,
    CarCancelled,
    CarRefused,
    FlightBooked,
    FlightCancelled,
    FlightRefused,
    PaymentRefused,
    RoomBooked,
    RoomCancelled,
    RoomRefused,
    TripCalledOff,
    TripPaid,
    TripRequested,
    trip_saga,
)
from toolkit import Participant

agency = Participant("agency", saga=trip_saga)


@agency.step(timeout=timedelta(minutes=10))
async def pay_trip(
    trip: TripRequested, room: RoomBooked, flight: FlightBooked, car: CarBooked, session: AsyncSession
) -> TripPaid | PaymentRefused:
    """Take the price of all three from the traveller's account, or refuse if it holds too little."""
    total = room.price + flight.price + car.price
    account = await session.get(Account, trip.traveller, with_for_update=True, populate_existing=True)
    if account is None or account.balance < total:
        return PaymentRefused(trip_id=trip.trip_id, reason="the traveller's account holds less than the price")
    account.balance -= total
    session.add(Payment(trip_id=trip.trip_id, traveller=trip.traveller, amount=total))
    return TripPaid(trip_id=trip.trip_id, total=total)


@agency.step()
async def call_off(
    room: RoomRefused | RoomCancelled, flight: FlightRefused | FlightCancelled, car: CarRefused | CarCancelled
) -> TripCalledOff:
    """End the trip once no branch has a booking, with the reasons for the traveller."""
    reasons = {each.reason for each in (room, flight, car)}
    return TripCalledOff(trip_id=room.trip_id, reason="; ".join(sorted(reasons)))
