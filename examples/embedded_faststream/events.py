"""The published language of the delivery saga: every event on one page, with the service that owns it."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from toolkit import Event, Refusal, Saga, SagaId, Sensitive

#: Where a parcel goes is personal data: it is masked wherever it is shown.
Street = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^\P{Cc}*$"), Sensitive]
#: The weight of a parcel, in grams.
Weight = Annotated[int, Field(gt=0, le=10**6)]


class ParcelArrived(Event, owner="depot"):
    """The sorting machine has seen a parcel, and the depot has stored it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"parcel_id": "parcel-1", "street": "Long Lane 7", "grams": 1200}]}
    )

    parcel_id: SagaId
    street: Street
    grams: Weight


class ShelfAssigned(Event, owner="depot"):
    """The parcel lies on a shelf; the courier takes it from there."""

    parcel_id: SagaId
    street: Street


class ParcelTooHeavy(Refusal, owner="depot"):
    """No shelf carries the parcel."""

    parcel_id: SagaId


class ShelfCleared(Event, owner="depot"):
    """The parcel is off its shelf again."""

    parcel_id: SagaId
    reason: str = ""


class ParcelDelivered(Event, owner="courier", optional=True):
    """The parcel is where it belongs: the saga has completed."""

    parcel_id: SagaId


class AddressUnknown(Refusal, owner="courier"):
    """The courier finds no such street."""

    parcel_id: SagaId


class ParcelReturned(Event, owner="depot", optional=True):
    """The parcel goes back to its sender: the saga has failed."""

    parcel_id: SagaId
    reason: str = ""


delivery_saga = Saga(
    name="delivery",
    id_field="parcel_id",
    starts_with=ParcelArrived,
    completes_with=ParcelDelivered,
    fails_with=ParcelReturned,
)
