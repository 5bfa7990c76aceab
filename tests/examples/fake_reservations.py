"""The reservation system of the trips, as a fake: its failures are scripted, and its bookings are counted."""

from __future__ import annotations

from examples.travel.reservations import Booking, BookingState
from toolkit.testing import OutsideSystem

PRICES = {"hotel": 30000, "flight": 20000, "car": 12000}


class FakeReservations(OutsideSystem):
    async def book(self, key: str, kind: str, name: str) -> Booking:
        booked = Booking(key=key, kind=kind, name=name, price=PRICES[kind], state=BookingState.BOOKED)
        full = Booking(key=key, state=BookingState.REFUSED, reason=f"{name} is fully booked")
        return await self.perform("book", key, booked, refusal=full)

    async def cancel(self, key: str) -> None:
        await self.undo("cancel", key)
