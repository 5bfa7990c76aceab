"""The published language of the trip saga: every event on one page, with the service that owns it.

Three branches run on the request at once. The payment joins them: it is the last step, and nothing undoes it. The
failed end joins them, too: each branch has refused, or is undone.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from toolkit import Event, Refusal, Saga, SagaId, Sensitive

#: The name of a hotel, of a flight or of a class of cars.
Offer = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9-]{1,32}$")]
#: Who travels is personal data: it is masked wherever it is shown.
Traveller = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9-]{1,32}$"), Sensitive]
#: Money in minor units (cents).
Amount = Annotated[int, Field(ge=0, le=10**12)]


class TripRequested(Event, owner="traveller"):
    """A traveller wants a room, a seat and a car, or nothing; any client may send it to start the saga."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"trip_id": "trip-1001", "traveller": "ADA", "hotel": "PLAZA", "flight": "SKY-7", "car": "COMPACT"}
            ]
        }
    )

    trip_id: SagaId
    traveller: Traveller
    hotel: Offer
    flight: Offer
    car: Offer


class RoomBooked(Event, owner="hotel"):
    """A room is booked, at this price."""

    trip_id: SagaId
    price: Amount


class RoomRefused(Refusal, owner="hotel"):
    """No room is booked, and none will be."""

    trip_id: SagaId


class RoomCancelled(Event, owner="hotel"):
    """The room is free again."""

    trip_id: SagaId
    reason: str = ""


class FlightBooked(Event, owner="airline"):
    """A seat is booked, at this price."""

    trip_id: SagaId
    price: Amount


class FlightRefused(Refusal, owner="airline"):
    """No seat is booked, and none will be."""

    trip_id: SagaId


class FlightCancelled(Event, owner="airline"):
    """The seat is free again."""

    trip_id: SagaId
    reason: str = ""


class CarBooked(Event, owner="car_rental"):
    """A car is booked, at this price."""

    trip_id: SagaId
    price: Amount


class CarRefused(Refusal, owner="car_rental"):
    """No car is booked, and none will be."""

    trip_id: SagaId


class CarCancelled(Event, owner="car_rental"):
    """The car is free again."""

    trip_id: SagaId
    reason: str = ""


class TripPaid(Event, owner="agency", optional=True):
    """All three are booked and paid: the saga has completed."""

    trip_id: SagaId
    total: Amount


class PaymentRefused(Refusal, owner="agency"):
    """The traveller can't pay, or a booking did not come in time."""

    trip_id: SagaId


class TripCalledOff(Event, owner="agency", optional=True):
    """Nothing is booked or paid: the saga has failed."""

    trip_id: SagaId
    reason: str


trip_saga = Saga(
    name="trip",
    id_field="trip_id",
    starts_with=TripRequested,
    completes_with=TripPaid,
    fails_with=TripCalledOff,
)
