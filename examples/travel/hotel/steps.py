"""The hotel in the trip saga: book a room, and cancel it when another branch or the payment refuses.

No transaction covers the reservation system. So each call has the step's idempotency key, and may be repeated.
"""

from __future__ import annotations

from datetime import timedelta

from examples.travel.events import (
    CarRefused,
    FlightRefused,
    PaymentRefused,
    RoomBooked,
    RoomCancelled,
    RoomRefused,
    TripRequested,
    trip_saga,
)
from examples.travel.reservations import BookingState, Reservations
from toolkit import IdempotencyKey, Participant, RetryPolicy

hotel = Participant("hotel", saga=trip_saga)

#: The traveller waits for a booking, so it gives up within seconds.
FOR_A_BOOKING = RetryPolicy(attempts=4, first_delay=timedelta(milliseconds=200))
#: A cancellation has to succeed, and no traveller waits for it: it outlasts an outage of some minutes.
FOR_A_CANCELLATION = RetryPolicy(attempts=12, first_delay=timedelta(milliseconds=200))


@hotel.step(timeout=timedelta(seconds=30), retry=FOR_A_BOOKING, external=True)
async def book_room(event: TripRequested, key: IdempotencyKey, reservations: Reservations) -> RoomBooked | RoomRefused:
    """Book a room, or refuse with the reservation system's reason."""
    booking = await reservations.book(key, "hotel", event.hotel)
    if booking.state != BookingState.BOOKED:
        return RoomRefused(trip_id=event.trip_id, reason=booking.reason)
    return RoomBooked(trip_id=event.trip_id, price=booking.price)


@hotel.compensation(of=book_room, retry=FOR_A_CANCELLATION)
async def cancel_room(
    event: FlightRefused | CarRefused | PaymentRefused,
    original: RoomBooked | None,
    key: IdempotencyKey,
    reservations: Reservations,
) -> RoomCancelled:
    """Free the place; where the outcome is unknown, make sure that none is taken."""
    await reservations.cancel(key)
    return RoomCancelled(trip_id=event.trip_id, reason=event.reason)
