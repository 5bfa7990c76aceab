"""Sample events are valid, whatever their fields are; where none can be guessed, the error names the cure."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, StringConstraints

from services.events import OrderCreated
from toolkit import Event, SagaId
from toolkit.testing import sample


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Item(BaseModel):
    sku: str
    count: Annotated[int, Field(gt=3)]


class CrateSent(Event, owner="depot"):
    crate_id: SagaId
    items: Annotated[list[Item], Field(min_length=2)]
    size: Size
    kind: Literal["wood"]
    sent_at: datetime
    day: date
    within: timedelta
    label: UUID
    code: Annotated[str, Field(min_length=8, max_length=9)]
    is_heavy: bool
    nothing: None
    weight: Annotated[float, Field(ge=0.5)] | None
    note: str = "optional"


class PlateSent(Event, owner="depot"):
    crate_id: SagaId
    plate: Annotated[str, StringConstraints(pattern="^[A-Z]{2}-[0-9]{4}$")]


def test_a_sample_fits_each_kind_of_field() -> None:
    event = sample(CrateSent, crate_id="crate-1")

    assert event.crate_id == "crate-1"
    assert (len(event.items), event.items[0].count, event.size, event.weight) == (2, 4, Size.SMALL, 0.5)
    assert event.note == "optional"


def test_a_sample_follows_the_documented_example() -> None:
    event = sample(OrderCreated, order_id="order-1")

    assert event.order_id == "order-1"
    assert event.payment_method == "card_ok"


def test_a_sample_takes_what_an_earlier_event_has() -> None:
    first = PlateSent(crate_id="crate-1", plate="AB-1234")

    assert sample(PlateSent, like=first, crate_id="crate-2").plate == "AB-1234"


def test_a_field_without_a_sample_names_the_cure() -> None:
    with pytest.raises(ValueError, match="PlateSent has fields that no sample fits, plate: give it an example"):
        sample(PlateSent, crate_id="crate-1")
