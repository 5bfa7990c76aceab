"""An event's field for the saga's id accepts saga ids only, and a saga has a plain name."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import (
    Field,
    StringConstraints,
    field_validator,
)

from tests.unit.declaration.parcels import event_class, is_accepted, parcel_saga
from toolkit import DeclarationError, Event, Participant, Saga, SagaId
from toolkit.declaration.event_rules import check_event


@pytest.mark.parametrize(
    ("kind", "probe"),
    [
        (str, "'ORD/2024/001'"),
        (Annotated[str, Field(max_length=64)], "'ORD/2024/001'"),
        (Annotated[str, Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9._:-]*$")], "'-1'"),
        (Annotated[str, Field(pattern="^[A-Za-z0-9]*$", min_length=1)], "'" + "a" * 65 + "'"),
        (SagaId | None, "None"),
        (int, "'-1'"),
        (float, "'-1'"),
        (Annotated[float, Field(ge=0)], "'1e16'"),
        (Decimal, "'-1'"),
        (Any, "'ORD/2024/001'"),
        (list[SagaId], "[]"),
    ],
)
def test_a_field_that_accepts_other_ids_is_refused(kind: Any, probe: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        check_event("a.step", event_class(parcel_id=(kind, ...)), parcel_saga())

    assert caught.value.function == "a.step"
    assert caught.value.fault == f"Sample.parcel_id accepts {probe}, which can't be a saga's id"
    assert caught.value.cure.startswith("Declare `parcel_id: SagaId`")


@pytest.mark.parametrize(
    "kind",
    [
        SagaId,
        UUID,
        Annotated[int, Field(ge=0)],
        Annotated[SagaId, StringConstraints(to_upper=True)],
        Annotated[str, Field(pattern="^ORD-[0-9]{1,9}$")],
    ],
)
def test_a_field_of_saga_ids_is_allowed(kind: Any) -> None:
    assert is_accepted(event_class(parcel_id=(kind, ...)))


def test_an_authors_own_validator_may_keep_ids_sound() -> None:
    class Sample(Event, owner="courier"):
        parcel_id: str

        @field_validator("parcel_id")
        @classmethod
        def is_a_number(cls, value: str) -> str:
            return str(int(value) if int(value) >= 0 else 1 // 0)

    assert is_accepted(Sample)


def test_an_event_may_lack_the_sagas_id() -> None:
    class Sample(Event, owner="courier"):
        note: str

    assert is_accepted(Sample)


class Nothing(Event, owner="customer"):
    note: str = ""


class Perhaps(Event, owner="customer"):
    parcel_id: SagaId = "always-the-same"


class Free(Event, owner="customer"):
    parcel_id: str


@pytest.mark.parametrize(
    ("saga", "fault"),
    [
        (parcel_saga(Nothing), "Nothing, which starts it, has no required field 'parcel_id'"),
        (parcel_saga(Perhaps), "Perhaps, which starts it, has no required field 'parcel_id'"),
        (parcel_saga(id_field="order_id"), "ParcelSent, which starts it, has no required field 'order_id'"),
        (parcel_saga(Free), "Free.parcel_id accepts 'ORD/2024/001', which can't be a saga's id"),
    ],
)
def test_a_starting_event_without_an_id_is_refused(saga: Saga, fault: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        Participant("courier", saga=saga)

    assert caught.value.function == f"Saga {saga.name!r}"
    assert caught.value.fault == fault


@pytest.mark.parametrize("name", ["", "a\nb", "a:b", "a" * 65, ".a"])
def test_a_saga_without_a_plain_name_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match="its name is not a plain word"):
        parcel_saga(name=name)
