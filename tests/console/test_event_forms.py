"""A form has an input for each kind of field, and the event gets the value that its schema wants."""

from __future__ import annotations

import re
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Literal

import pytest
from pydantic import Field, RootModel

from toolkit import Answer, SagaId
from toolkit.console.event_forms import FormField, fields_of, values_of
from toolkit.declaration.redaction import schema_of


class Mood(StrEnum):
    GOOD = "good"
    BAD = "bad"


class Graded(Answer, owner="teacher"):
    paper_id: SagaId
    text: str = Field(description="What the author reads.")
    points: int
    share: float | None = None
    is_final: bool = False
    mood: Mood = Mood.GOOD
    kind: Literal["short", "long"]
    day: date
    at: datetime | None = None
    marks: tuple[int, ...] = ()
    code: Literal["true", "5", "1e3"] = "5"
    level: Literal[1, 2] = 1


FIELDS = {each.name: each for each in fields_of(schema_of(Graded), without="paper_id")}


@pytest.mark.parametrize(
    ("name", "kind", "is_required", "default"),
    [
        ("text", "text", True, ""),
        ("points", "number", True, ""),
        ("share", "number", False, ""),
        ("is_final", "select", False, "false"),
        ("mood", "select", False, "good"),
        ("kind", "select", True, ""),
        ("day", "date", True, ""),
        ("at", "datetime-local", False, ""),
        ("marks", "json", False, "[]"),
    ],
)
def test_each_field_has_its_input(name: str, kind: str, is_required: bool, default: str) -> None:
    field = FIELDS[name]

    assert (field.kind, field.is_required, field.default) == (kind, is_required, default)


def test_inputs_know_their_options_steps_and_descriptions() -> None:
    assert (list(FIELDS["mood"].options), list(FIELDS["kind"].options)) == (["good", "bad"], ["short", "long"])
    assert (FIELDS["points"].step, FIELDS["share"].step) == ("1", "any")
    assert FIELDS["text"].description == "What the author reads."
    assert "paper_id" not in FIELDS


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "5", "5"),
        ("text", "", ""),
        ("points", "5", 5),
        ("share", "0.5", 0.5),
        ("is_final", "true", True),
        ("mood", "bad", "bad"),
        ("day", "2026-05-04", "2026-05-04"),
        ("at", "2026-05-04T12:00", "2026-05-04T12:00Z"),
        ("marks", "[1, 2]", [1, 2]),
        ("code", "true", "true"),
        ("code", "5", "5"),
        ("level", "1", 1),
        ("points", "-7", -7),
        ("share", ".5", 0.5),
        ("share", "1e3", 1000.0),
    ],
)
def test_submitted_texts_become_the_events_values(name: str, text: str, value: Any) -> None:
    assert values_of([FIELDS[name]], {f"field.{name}": text}) == {name: value}


def test_empty_optional_inputs_are_left_out() -> None:
    assert values_of([FIELDS["share"], FIELDS["at"]], {"field.share": "", "field.at": " "}) == {}


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("marks", "one", "is not JSON"),
        ("points", "true", "is not a number"),
        ("points", "NaN", "is not a number"),
        ("share", "[1]", "is not a number"),
        ("mood", "fair", "is none of good, bad"),
        ("is_final", "1", "is none of true, false"),
    ],
)
def test_a_value_of_another_type_is_named(name: str, text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {re.escape(repr(text))} {fault}"):
        values_of([FIELDS[name]], {f"field.{name}": text})


def test_a_type_that_holds_itself_takes_json() -> None:
    class Chain(RootModel["Chain | None"]):
        pass

    class Replied(Answer, owner="teacher"):
        paper_id: SagaId
        chain: Chain
        replies: tuple[Replied, ...] = ()

    Chain.model_rebuild(_types_namespace={"Chain": Chain})
    Replied.model_rebuild(_types_namespace={"Chain": Chain, "Replied": Replied})

    fields = fields_of(Replied.model_json_schema(), without="paper_id")

    assert [(field.name, field.kind) for field in fields] == [("chain", "json"), ("replies", "json")]


def test_an_unknown_schema_takes_json() -> None:
    (field,) = fields_of({"properties": {"odd": {}}}, without="id")

    assert field == FormField(name="odd", kind="json", is_required=False)
