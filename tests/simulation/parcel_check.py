"""What a simulation checks of parcels, beside the toolkit's invariants: the shelf adds up, and none is sent twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.example_sagas.parcels import FULL, Carrier, ParcelOrdered
from toolkit.testing import SimulatedSagas

#: Two parcels: of the first the customer is away, the second is signed for.
PARCELS = [ParcelOrdered(parcel_id="p-1", town="Hochtal"), ParcelOrdered(parcel_id="p-2")]


def parcels_add_up(sagas: SimulatedSagas) -> Iterator[str]:
    signed = sum(state == "Completed" for state in sagas.states.values())
    ((left,),) = sagas.rows("shelf", "SELECT parcels FROM shelf")
    if left != FULL - signed:
        yield f"{FULL - signed - left} parcels are missing on the shelf"
    sent = Counter(key.split(":")[1] for key in sagas.provided(Carrier).effects.elements())
    yield from (f"{parcel} was sent more than once" for parcel, times in sent.items() if times > 1)
