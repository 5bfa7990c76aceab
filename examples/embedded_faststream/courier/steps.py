"""The courier in the delivery saga: the last step, which nothing undoes."""

from __future__ import annotations

from examples.embedded_faststream.events import AddressUnknown, ParcelDelivered, ShelfAssigned, delivery_saga
from toolkit import Participant

#: A street that the courier does not find.
UNKNOWN = "Nowhere"

courier = Participant("courier", saga=delivery_saga)


@courier.step()
async def deliver_parcel(event: ShelfAssigned) -> ParcelDelivered | AddressUnknown:
    """Deliver the parcel, or refuse if there is no such street."""
    if event.street.startswith(UNKNOWN):
        return AddressUnknown(parcel_id=event.parcel_id, reason="there is no such street")
    return ParcelDelivered(parcel_id=event.parcel_id)
