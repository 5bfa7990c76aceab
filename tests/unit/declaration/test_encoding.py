"""A step's event is emitted only if the next service reads the same event from it."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Json, PlainSerializer, PrivateAttr, field_validator

from toolkit import Event, Refusal, Saga, SagaId
from toolkit.declaration.encoding import encode
from toolkit.errors import StepError


class RoomWanted(Event, owner="guest"):
    stay_id: SagaId


class RoomGiven(Event, owner="hotel"):
    stay_id: SagaId
    note: str = ""
    rates: list[int] = Field(default_factory=list)


class RoomRefused(Refusal, owner="hotel"):
    stay_id: SagaId


STAY = Saga(name="stay", id_field="stay_id", starts_with=RoomWanted, completes_with=RoomGiven, fails_with=RoomRefused)


def encoded(event: Event, *, most: int = 10_000) -> bytes:
    return encode(event, saga=STAY, saga_id="stay-1", most=most)


def refused(event: Event) -> str:
    with pytest.raises(StepError) as caught:
        encoded(event)
    return str(caught.value)


def holds(kind: Any, value: Any, config: ConfigDict | None = None) -> Event:
    """Return an event with one field of this kind."""
    settings = config or ConfigDict()

    class Sample(Event, owner="hotel"):
        model_config = settings
        it: kind

    return Sample(it=value)


class Bed(BaseModel):
    width: int


class Seen(BaseModel):
    by: int
    _at: object = PrivateAttr(default_factory=object)


class WideBed(Bed):
    extra: int = 0


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    items: tuple[T, ...]


class Colour(Enum):
    RED = "red"


BERLIN = ZoneInfo("Europe/Berlin")

SOUND = [
    (str, "a\0b \U0001f600 \ud7ff"),
    (int, 10**400),
    (float, 0.1 + 0.2),
    (float, 5e-324),
    (Decimal, Decimal("1.10000000000000000000000000000000001")),
    (bytes, "é".encode()),
    (bool, True),
    (datetime, datetime(2026, 5, 4, 12, 0, 0, 1, tzinfo=UTC).replace(tzinfo=None)),
    (datetime, datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)),
    (datetime, datetime(2026, 5, 4, tzinfo=timezone(timedelta(hours=5, minutes=45)))),
    (date, date(1, 1, 1)),
    (time, time(23, 59, 59, 999_999)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (UUID, UUID(int=1)),
    (Path, Path("/a/b")),
    (Colour, Colour.RED),
    (Literal["a", 1], 1),
    (set[int], {3, 1, 2}),
    (dict[int, Decimal], {1: Decimal("0.10")}),
    (tuple[Bed, ...], (Bed(width=1),)),
    (Page[Bed], Page[Bed](items=(Bed(width=1),))),
    (int | str, "1"),
    (Bed | WideBed, WideBed(width=1, extra=2)),
    (Any, {"a": [1, None, "x"]}),
    (dict[str, list[datetime]], {"in": [datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)]}),
    (Seen, Seen(by=1)),
]


@pytest.mark.parametrize(("kind", "value"), SOUND, ids=lambda each: str(each)[:30])
@pytest.mark.parametrize("is_strict", [False, True])
def test_what_json_keeps_goes_out_as_it_is(kind: Any, value: Any, is_strict: bool) -> None:
    event = holds(kind, value, ConfigDict(strict=is_strict))

    assert type(event).model_validate_json(encoded(event)).model_dump_json() == event.model_dump_json()


UNSOUND = [
    (float, float("nan"), "the Sample can't be read from its own JSON (it: float_type)"),
    (float, float("inf"), "the Sample can't be read from its own JSON (it: float_type)"),
    (bytes, b"\xff", "the Sample can't be written as JSON (PydanticSerializationError)"),
    (Any, (1, 2), "the Sample changes when it is read from its own JSON (it)"),
    (Any, {1: "a"}, "the Sample changes when it is read from its own JSON (it)"),
    (Any, object(), "the Sample can't be written as JSON (PydanticSerializationError)"),
    (Any, Decimal("1.1"), "the Sample changes when it is read from its own JSON (it)"),
    (Bed, WideBed(width=1), "the Sample changes when it is read from its own JSON (it)"),
    (Annotated[str | date, Field(union_mode="left_to_right")], date(1, 1, 1), "the Sample changes when it is read"),
    (list[Bed], [WideBed(width=1)], "the Sample changes when it is read"),
    (dict[str, Any], {"a": {1}}, "the Sample changes when it is read"),
    (list[Any], [[1], (1,)], "the Sample changes when it is read"),
    (Annotated[list[int], AfterValidator(lambda it: [*it, 1])], [], "the Sample changes when it is read"),
    (
        Annotated[dict[int, int], AfterValidator(lambda it: it | {len(it): 1})],
        {},
        "the Sample changes when it is read",
    ),
    (
        Annotated[datetime, AfterValidator(lambda it: it + timedelta(1))],
        datetime(2026, 5, 4, tzinfo=UTC),
        "the Sample changes",
    ),
    (Json, "[1]", "the Sample can't be read from its own JSON (it: json_type)"),
    (Annotated[int, AfterValidator(lambda it: it + 1)], 1, "the Sample changes when it is read"),
    (Annotated[int, PlainSerializer(lambda it: f"{it} m")], 1, "the Sample can't be read from its own JSON (it: int_"),
    (Annotated[int, PlainSerializer(lambda it: 1 // 0)], 1, "the Sample can't be written as JSON"),
]


@pytest.mark.parametrize(("kind", "value", "fault"), UNSOUND, ids=lambda each: str(each)[:40].partition(" at 0x")[0])
def test_what_json_loses_fails_the_attempt(kind: Any, value: Any, fault: str) -> None:
    error = refused(holds(kind, value))

    assert error.startswith(fault)
    assert error.endswith("build it with its class, from valid values of types that JSON preserves")


def test_an_event_that_bypassed_validation_fails_the_attempt() -> None:
    given_room = RoomGiven(stay_id="stay-1")
    changed = RoomGiven(stay_id="stay-1", rates=[1])
    changed.rates.append("a secret")

    assert "(rates.1: int_parsing)" in refused(changed)
    assert "(note: string_type)" in refused(given_room.model_copy(update={"note": 7}))
    assert "(reason: missing)" in refused(RoomRefused.model_construct(stay_id="stay-1"))
    assert "a secret" not in refused(changed)


def test_a_validator_that_raises_fails_the_attempt() -> None:
    class Sample(Event, owner="hotel"):
        it: int

        @field_validator("it")
        @classmethod
        def raises_at_the_second_time(cls, it: int) -> int:
            return calls.append(it) or {1: it}[len(calls)]

    calls: list[int] = []

    assert refused(Sample(it=1)).startswith("the Sample can't be read from its own JSON (KeyError)")


def test_private_attributes_need_not_survive_json() -> None:
    class Sample(Event, owner="hotel"):
        it: int
        _seen: object = PrivateAttr(default_factory=object)

    assert encoded(Sample(it=1)) == b'{"it":1}'


@pytest.mark.parametrize("event", [RoomGiven(stay_id="stay-2"), RoomRefused(stay_id="stay-2", reason="full")])
def test_an_event_of_another_saga_fails_the_attempt(event: Event) -> None:
    error = refused(event)

    assert f"the {type(event).__name__} belongs to the saga 'stay-2', but answers an event of 'stay-1'" in error
    assert "`stay_id=event.stay_id`" in error


def test_an_event_may_reach_the_size_limit() -> None:
    event = RoomGiven(stay_id="stay-1", note="é" * 1000)
    size = len(event.model_dump_json().encode())

    assert len(encoded(event, most=size)) == size
    with pytest.raises(StepError, match=f"has {size} bytes as JSON, more than the limit of {size - 1}:"):
        encoded(event, most=size - 1)


@given(note=st.text(), rates=st.lists(st.integers()))
def test_whatever_a_valid_event_holds_survives(note: str, rates: list[int]) -> None:
    event = RoomGiven(stay_id="stay-1", note=note, rates=rates)

    assert RoomGiven.model_validate_json(encoded(event, most=10**9)) == event


def test_a_built_refusal_is_bounded_whatever_the_reason() -> None:
    event = STAY.build(RoomRefused, saga_id="stay-1", reason="\x01\0" * 100_000)

    assert len(encoded(event)) < 8 * 1024
