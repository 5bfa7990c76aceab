"""The depot in the delivery saga: put the parcel on a shelf, and clear it if the parcel comes back."""

from __future__ import annotations

from sqlmodel.ext.asyncio.session import AsyncSession

from examples.embedded_faststream.depot.models import Shelf
from examples.embedded_faststream.events import (
    AddressUnknown,
    ParcelArrived,
    ParcelReturned,
    ParcelTooHeavy,
    ShelfAssigned,
    ShelfCleared,
    delivery_saga,
)
from toolkit import Participant

#: What a shelf carries, in grams.
MOST = 30_000

depot = Participant("depot", saga=delivery_saga)


@depot.step()
async def assign_shelf(event: ParcelArrived, session: AsyncSession) -> ShelfAssigned | ParcelTooHeavy:
    """Put the parcel on a shelf, or refuse if no shelf carries it."""
    if event.grams > MOST:
        return ParcelTooHeavy(parcel_id=event.parcel_id, reason=f"its {event.grams} g are more than {MOST} g")
    session.add(Shelf(parcel_id=event.parcel_id))
    return ShelfAssigned(parcel_id=event.parcel_id, street=event.street)


@depot.compensation(of=assign_shelf)
async def clear_shelf(event: AddressUnknown, session: AsyncSession) -> ShelfCleared:
    """Take the parcel off its shelf."""
    shelf = await session.get_one(Shelf, event.parcel_id)
    shelf.is_cleared = True
    return ShelfCleared(parcel_id=event.parcel_id, reason=event.reason)


@depot.step()
async def return_parcel(event: ParcelTooHeavy | ShelfCleared) -> ParcelReturned:
    """Send the parcel back."""
    return ParcelReturned(parcel_id=event.parcel_id, reason=event.reason)
