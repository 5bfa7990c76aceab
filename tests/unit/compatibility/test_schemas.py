"""A schema's differences: what a reader refuses is found, and what is found to be read is read."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, create_model

from toolkit.compatibility.differences import Kind
from toolkit.compatibility.schemas import differences, fields_of


class Tree(BaseModel):
    value: int
    below: list[Tree] = []


class LargerTree(BaseModel):
    value: float
    below: list[LargerTree] = []


class SmallerTree(BaseModel):
    value: Annotated[int, Field(lt=10)]
    below: list[SmallerTree] = []


class ByCard(BaseModel):
    kind: Literal["card"]
    number: str


class ByCash(BaseModel):
    kind: Literal["cash"]


def model(
    name: str = "Sent", *, extra: Literal["ignore", "forbid", "allow"] = "ignore", **fields: Any
) -> dict[str, Any]:
    """Return the schema of a model with these fields; one with a default is a pair of type and default."""
    typed = {each: kind if isinstance(kind, tuple) else (kind, ...) for each, kind in fields.items()}
    return create_model(name, __config__=ConfigDict(extra=extra), **typed).model_json_schema()


SAME_OR_WIDER = {
    "the same": (model(a=int), model(a=int)),
    "another name and words": (model(a=int), model("Taken", a=Annotated[int, Field(description="the amount")])),
    "a field with a default is new": (model(a=int), model(a=int, b=(str, ""))),
    "a field is not read": (model(a=int, b=str), model(a=int)),
    "an integer is a number": (model(a=int), model(a=float)),
    "null is taken": (model(a=str), model(a=str | None)),
    "one more type is taken": (model(a=int), model(a=int | str)),
    "one more value is taken": (model(a=Literal["x"]), model(a=Literal["x", "y"])),
    "a listed value is a text": (model(a=Literal["x", "yy"]), model(a=Annotated[str, Field(max_length=2)])),
    "longer texts are taken": (
        model(a=Annotated[str, Field(max_length=5)]), model(a=Annotated[str, Field(max_length=9)]),
    ),
    "larger numbers are taken": (model(a=Annotated[int, Field(lt=5)]), model(a=Annotated[int, Field(le=5)])),
    "multiples of a multiple": (
        model(a=Annotated[int, Field(multiple_of=6)]), model(a=Annotated[int, Field(multiple_of=3)]),
    ),
    "an optional field left out": (model(a=int, b=(str, "")), model(a=int, b=(str, ""))),
    "a kind more": (model(a=ByCard), model(a=Annotated[ByCard | ByCash, Field(discriminator="kind")])),
    "trees of wider values": (Tree.model_json_schema(), LargerTree.model_json_schema()),
    "a list instead of a pair": (model(a=tuple[int, int]), model(a=list[int])),
    "a map of wider values": (model(a=dict[str, int]), model(a=dict[str, float])),
    "unknown fields of a map": (model(a=dict[str, int]), model(a=dict[str, Any])),
    "no rule at all": (model(a=date), model(a=Any)),
}  # fmt: skip

NARROWER = {
    "a required field is new": (model(a=int), model(a=int, b=str), Kind.REQUIRED, "b"),
    "a required field within is new": (
        model(a=create_model("A", x=(int, ...))), model(a=create_model("A", x=(int, ...), y=(int, ...))),
        Kind.REQUIRED, "a.y",
    ),
    "a field is renamed": (model(amount=int, a=str), model(total=int, a=str), Kind.RENAMED, "total"),
    "unknown fields are forbidden": (model(a=int, b=int), model(a=int, extra="forbid"), Kind.UNKNOWN, "b"),
    "null is not taken": (model(a=str | None), model(a=str), Kind.NULL, "a"),
    "a type is another": (model(a=int), model(a=str), Kind.TYPE, "a"),
    "a number is no integer": (model(a=float), model(a=int), Kind.TYPE, "a"),
    "any type becomes one": (model(a=Any), model(a=str), Kind.TYPE, "a"),
    "an item's type is another": (model(a=list[int]), model(a=list[str]), Kind.TYPE, "a.*"),
    "a value is not taken": (model(a=Literal["x", "y"]), model(a=Literal["x"]), Kind.NARROWED, "a"),
    "null is not among the values": (model(a=Literal["x"] | None), model(a=Literal["x"]), Kind.NULL, "a"),
    "any text becomes a value": (model(a=str), model(a=Literal["x"]), Kind.NARROWED, "a"),
    "a listed value is too long": (
        model(a=Literal["x", "yyy"]), model(a=Annotated[str, Field(max_length=2)]), Kind.NARROWED, "a",
    ),
    "texts are shorter": (model(a=str), model(a=Annotated[str, Field(max_length=9)]), Kind.NARROWED, "a"),
    "texts are longer": (model(a=str), model(a=Annotated[str, Field(min_length=1)]), Kind.NARROWED, "a"),
    "numbers are larger": (model(a=int), model(a=Annotated[int, Field(ge=0)]), Kind.NARROWED, "a"),
    "numbers are smaller": (
        model(a=Annotated[int, Field(le=5)]), model(a=Annotated[int, Field(lt=5)]), Kind.NARROWED, "a",
    ),
    "numbers are multiples": (model(a=int), model(a=Annotated[int, Field(multiple_of=2)]), Kind.NARROWED, "a"),
    "a pattern is new": (
        model(a=str), model(a=Annotated[str, StringConstraints(pattern="^x")]), Kind.NARROWED, "a",
    ),
    "a format is new": (model(a=str), model(a=UUID), Kind.NARROWED, "a"),
    "a format is another": (model(a=datetime), model(a=date), Kind.NARROWED, "a"),
    "lists are shorter": (model(a=list[int]), model(a=Annotated[list[int], Field(max_length=3)]), Kind.NARROWED, "a"),
    "a pair instead of a list": (model(a=list[int]), model(a=tuple[int, int]), Kind.NARROWED, "a"),
    "items are different": (model(a=list[int]), model(a=set[int]), Kind.NARROWED, "a"),
    "a kind is not taken": (
        model(a=Annotated[ByCard | ByCash, Field(discriminator="kind")]), model(a=ByCard), Kind.NARROWED, "a.kind",
    ),
    "a map's values are others": (model(a=dict[str, int]), model(a=dict[str, bool]), Kind.TYPE, "a.*"),
    "trees of narrower values": (Tree.model_json_schema(), SmallerTree.model_json_schema(), Kind.NARROWED, "value"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME_OR_WIDER)
def test_what_a_reader_takes_is_no_difference(name: str) -> None:
    writer, reader = SAME_OR_WIDER[name]

    assert differences(writer, reader) == []


@pytest.mark.parametrize("name", NARROWER)
def test_what_a_reader_refuses_is_found(name: str) -> None:
    writer, reader, kind, path = NARROWER[name]

    found = differences(writer, reader)

    assert (kind, path) in [(each.kind, each.path) for each in found]
    assert differences(writer, writer) == []


def test_a_client_may_leave_out_a_field() -> None:
    writer, reader = model(a=(int, 0)), model(a=int)

    assert differences(writer, reader) == []
    (found,) = differences(writer, reader, is_complete=False)
    assert (found.kind, found.path, found.text) == (Kind.LEFT_OUT, "a", "is required, and may be left out")


def test_a_schema_names_its_fields_at_any_depth() -> None:
    schema = model(a=list[Tree], b=dict[str, ByCard])

    assert fields_of(schema) == {"a", "a.*.value", "a.*.below", "b", "b.*.kind", "b.*.number"}


# -- what is found to be read is read ----------------------------------------------------------------------------------

#: Types, each with values that a body may have; they differ by a rule at most, so that many pairs are compatible.
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-20, 20)),
    (Annotated[int, Field(ge=0)], st.integers(0, 20)),
    (Annotated[int, Field(gt=0, lt=10)], st.integers(1, 9)),
    (Annotated[int, Field(multiple_of=4)], st.integers(-5, 5).map(lambda each: each * 4)),
    (float, st.floats(-20, 20)),
    (bool, st.booleans()),
    (str, st.text(max_size=6)),
    (Annotated[str, Field(max_length=3)], st.text(max_size=3)),
    (Annotated[str, Field(min_length=1)], st.text(min_size=1, max_size=6)),
    (Literal["a", "bcd"], st.sampled_from(["a", "bcd"])),
    (Literal["a"], st.just("a")),
    (Literal[1, 2], st.sampled_from([1, 2])),
    (date, st.dates()),
    (Decimal, st.decimals(-9, 9, places=2)),
    (UUID, st.uuids()),
]


@st.composite
def kinds(draw: st.DrawFn, depth: int = 0) -> tuple[Any, st.SearchStrategy[Any]]:
    """Draw a type, and a strategy for its values."""
    kind, values = draw(st.sampled_from(LEAVES))
    wrapped = draw(st.sampled_from(["", "", "null", "list", "short list", "map", "union", "model"]))
    if wrapped == "null":
        return kind | None, st.none() | values
    if wrapped == "list":
        return list[kind], st.lists(values, max_size=4)
    if wrapped == "short list":
        return Annotated[list[kind], Field(max_length=2)], st.lists(values, max_size=2)
    if wrapped == "map":
        return dict[str, kind], st.dictionaries(st.text(max_size=2), values, max_size=2)
    if wrapped == "union":
        other, others = draw(st.sampled_from(LEAVES))
        return kind | other, values | others
    if wrapped == "model" and depth < 2:
        inner, strategy = draw(models(depth + 1))
        return inner, strategy
    return kind, values


@st.composite
def models(draw: st.DrawFn, depth: int = 0) -> tuple[type[BaseModel], st.SearchStrategy[Any]]:
    """Draw a model of some of three fields, and a strategy for its instances."""
    names = draw(st.sets(st.sampled_from(["x", "y", "z"]), min_size=1))
    fields: dict[str, Any] = {}
    strategies = {}
    for name in sorted(names):
        kind, values = draw(kinds(depth))
        has_default = draw(st.booleans())
        fields[name] = (kind | None, None) if has_default else (kind, ...)
        strategies[name] = values
    config = ConfigDict(extra=draw(st.sampled_from(["ignore", "ignore", "forbid"])))
    drawn = create_model("Drawn", __config__=config, **fields)
    return drawn, st.fixed_dictionaries(strategies).map(lambda each: drawn.model_construct(**each))


@settings(max_examples=400, deadline=None)
@given(models(), models(), st.data())
def test_what_is_called_compatible_is_read(
    writer: tuple[type[BaseModel], st.SearchStrategy[Any]],
    reader: tuple[type[BaseModel], st.SearchStrategy[Any]],
    data: st.DataObject,
) -> None:
    kind, bodies = writer
    found = differences(kind.model_json_schema(), reader[0].model_json_schema())

    body = data.draw(bodies).model_dump_json(warnings=False)

    fault = refusal_of(reader[0], body)
    assert found or fault is None, f"{json.dumps(kind.model_json_schema())} is written, and refused: {fault}"


def refusal_of(kind: type[BaseModel], body: str) -> str | None:
    try:
        kind.model_validate_json(body)
    except ValidationError as error:
        return str(error)
    return None
