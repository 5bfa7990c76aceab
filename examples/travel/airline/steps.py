"""The airline in the trip saga: book a seat, and cancel it when another branch or the payment refuses.

No transaction covers the reservation system. So each call has the step's idempotency key, and may be repeated.
"""

from __future__ import annotations

from datetime import timedelta

from examples.travel.events import (
    CarRefused,
    FlightBooked,
    FlightCancelled,
    FlightRefused,
    PaymentRefused,
    RoomRefused,
    TripRequested,
    trip_saga,
)
from examples.travel.reservations import BookingState, Reservations
from toolkit import IdempotencyKey, Participant, RetryPolicy

airline = Participant("airline", saga=trip_saga)

#: The traveller waits for a booking, so it gives up within seconds.
FOR_A_BOOKING = RetryPolicy(attempts=4, first_delay=timedelta(milliseconds=200))
#: A cancellation has to succeed, and no traveller waits for it: it outlasts an outage of some minutes.
FOR_A_CANCELLATION = RetryPolicy(attempts=12, first_delay=timedelta(milliseconds=200))


@airline.step(timeout=timedelta(seconds=30), retry=FOR_A_BOOKING, external=True)
async def book_flight(
    event: TripRequested, key: IdempotencyKey, reservations: Reservations
) -> FlightBooked | FlightRefused:
    """Book a seat, or refuse with the reservation system's reason."""
    booking = await reservations.book(key, "flight", event.flight)
    if booking.state != BookingState.BOOKED:
        return FlightRefused(trip_id=event.trip_id, reason=booking.reason)
    return FlightBooked(trip_id=event.trip_id, price=booking.price)


@airline.compensation(of=book_flight, retry=FOR_A_CANCELLATION)
async def cancel_flight(
    event: RoomRefused | CarRefused | PaymentRefused,
    original: FlightBooked | None,
    key: IdempotencyKey,
    reservations: Reservations,
) -> FlightCancelled:
    """Free the place; where the outcome is unknown, make sure that none is taken."""
    await reservations.cancel(key)
    return FlightCancelled(trip_id=event.trip_id, reason=event.reason)
