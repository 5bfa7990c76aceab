"""The toolkit can build each refusal from the saga's id and a reason."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import pytest
from pydantic import (
    ConfigDict,
    Field,
    model_validator,
)
from pydantic.alias_generators import to_camel

from tests.unit.declaration.parcels import ParcelBrought, ParcelSent, parcel_saga
from toolkit import DeclarationError, Event, Participant, Refusal, SagaId


class Lost(Refusal, owner="courier"):
    parcel_id: SagaId


class LostAs(Refusal, owner="courier"):
    parcel_id: UUID


class LostShortly(Refusal, owner="courier"):
    parcel_id: SagaId
    reason: Annotated[str, Field(max_length=50)]


class LostSomewhere(Refusal, owner="courier"):
    parcel_id: SagaId
    place: str | None = None

    @model_validator(mode="after")
    def has_a_place(self) -> LostSomewhere:
        if self.place is None:
            raise ValueError("where?")
        return self


class LostCamel(Refusal, owner="courier"):
    model_config = ConfigDict(alias_generator=to_camel, serialize_by_alias=True)

    parcel_id: SagaId


def declare(refusal: type[Refusal], starts_with: type[Event] = ParcelSent) -> Participant:
    async def bring(event: Event) -> Event: ...

    bring.__annotations__ = {"event": starts_with, "return": ParcelBrought | refusal}
    courier = Participant("courier", saga=parcel_saga(starts_with))
    courier.step()(bring)
    return courier


@pytest.mark.parametrize(
    ("refusal", "fault"),
    [
        (LostAs, "LostAs can't be built for a saga '1' (parcel_id: uuid_parsing)"),
        (LostShortly, "LostShortly can't be built for a saga '1' (reason: string_too_long)"),
        (LostSomewhere, "LostSomewhere can't be built for a saga '1' (: value_error)"),
    ],
)
def test_a_refusal_the_toolkit_cannot_build_is_refused(refusal: type[Refusal], fault: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare(refusal)

    assert caught.value.fault == f"{fault}, but a refusal is also emitted for a step that never ran"


class ParcelSentAs(Event, owner="customer"):
    parcel_id: UUID


@pytest.mark.parametrize(
    ("refusal", "starts_with"), [(Lost, ParcelSent), (LostAs, ParcelSentAs), (LostCamel, ParcelSent)]
)
def test_a_refusal_that_can_be_built_is_allowed(refusal: type[Refusal], starts_with: type[Event]) -> None:
    assert declare(refusal, starts_with).steps[0].refusals == (refusal,)
