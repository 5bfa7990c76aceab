"""The car rental in the trip saga: book a car, and cancel it when another branch or the payment refuses.

No transaction covers the reservation system. So each call has the step's idempotency key, and may be repeated.
"""

from __future__ import annotations

from datetime import timedelta

from examples.travel.events import (
    CarBooked,
    CarCancelled,
    CarRefused,
    FlightRefused,
    PaymentRefused,
    RoomRefused,
    TripRequested,
    trip_saga,
)
from examples.travel.reservations import BookingState, Reservations
from toolkit import IdempotencyKey, Participant, RetryPolicy

car_rental = Participant("car_rental", saga=trip_saga)

#: The traveller waits for a booking, so it gives up within seconds.
FOR_A_BOOKING = RetryPolicy(attempts=4, first_delay=timedelta(milliseconds=200))
#: A cancellation has to succeed, and no traveller waits for it: it outlasts an outage of some minutes.
FOR_A_CANCELLATION = RetryPolicy(attempts=12, first_delay=timedelta(milliseconds=200))


@car_rental.step(timeout=timedelta(seconds=30), retry=FOR_A_BOOKING, external=True)
async def book_car(event: TripRequested, key: IdempotencyKey, reservations: Reservations) -> CarBooked | CarRefused:
    """Book a car, or refuse with the reservation system's reason."""
    booking = await reservations.book(key, "car", event.car)
    if booking.state != BookingState.BOOKED:
        return CarRefused(trip_id=event.trip_id, reason=booking.reason)
    return CarBooked(trip_id=event.trip_id, price=booking.price)


@car_rental.compensation(of=book_car, retry=FOR_A_CANCELLATION)
async def cancel_car(
    event: RoomRefused | FlightRefused | PaymentRefused,
    original: CarBooked | None,
    key: IdempotencyKey,
    reservations: Reservations,
) -> CarCancelled:
    """Free the place; where the outcome is unknown, make sure that none is taken."""
    await reservations.cancel(key)
    return CarCancelled(trip_id=event.trip_id, reason=event.reason)
