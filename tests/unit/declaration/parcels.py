"""A parcel's saga, and classes of events for it that a test makes up."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, create_model

from toolkit import DeclarationError, Event, Saga, SagaId
from toolkit.declaration.event_rules import check_event


class ParcelSent(Event, owner="customer"):
    parcel_id: SagaId


class ParcelBrought(Event, owner="courier", optional=True):
    parcel_id: SagaId
    reason: str = ""


def parcel_saga(starts_with: type[Event] = ParcelSent, name: str = "parcel", id_field: str = "parcel_id") -> Saga:
    return Saga(
        name=name, id_field=id_field, starts_with=starts_with, completes_with=ParcelBrought, fails_with=ParcelBrought
    )


def is_accepted(event_type: type[Event]) -> bool:
    """Whether a step may take or return the event."""
    try:
        check_event("a.step", event_type, parcel_saga())
    except DeclarationError:
        return False
    return True


def event_class(base: type[Event] = Event, config: ConfigDict | None = None, **fields: Any) -> type[Event]:
    """Return an event class with these fields, and with the saga's id unless they have it."""
    known: Any = {"parcel_id": (SagaId, ...)} | fields
    model = create_model("Sample", __base__=base, __cls_kwargs__={"owner": "courier"}, **known)
    if config:
        model.model_config = {**model.model_config, **config}
        model.model_rebuild(force=True)
    return model
