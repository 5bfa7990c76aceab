"""Sensitive fields are shown as `***`, and what can't be read against a declaration is not shown at all."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from toolkit import Event, Sensitive
from toolkit.declaration.contract import event_contract
from toolkit.declaration.redaction import (
    NO_OBJECT,
    REDACTED,
    UNKNOWN,
    has_sensitive_fields,
    redacted_body,
    redacted_object,
    sensitive_paths,
)

Name = Annotated[str, StringConstraints(min_length=1), Sensitive]


class Guest(BaseModel):
    name: Name
    nights: int


class RoomBooked(Event, owner="desk"):
    booking_id: str
    guest: Guest
    others: tuple[Guest, ...] = ()
    by_room: dict[str, Guest] = Field(default_factory=dict)
    passport: Annotated[dict[str, str], Sensitive] = Field(default_factory=dict)
    phone: Name | None = None
    deposit: Annotated[int, Sensitive] = 0
    notes: dict[str, Any] = Field(default_factory=dict)


class Bed(BaseModel):
    sleeper: Name
    below: Bed | None = None


class BunkTaken(Event, owner="desk"):
    bed: Bed


BODY = {
    "booking_id": "b-1",
    "guest": {"name": "Ada Lovelace", "nights": 2},
    "others": [{"name": "Charles", "nights": 1}],
    "by_room": {"12": {"name": "Mary", "nights": 3}},
    "passport": {"number": "GB-1815"},
    "phone": "+44 20 1",
    "deposit": 12_345,
    "notes": {"late": True},
}


@pytest.mark.parametrize("declared", [RoomBooked, event_contract(RoomBooked)], ids=["declaration", "contract"])
def test_sensitive_fields_are_redacted_wherever_they_stand(declared):
    shown = redacted_body(declared, BODY)

    assert shown == {
        "booking_id": "b-1",
        "guest": {"name": REDACTED, "nights": 2},
        "others": [{"name": REDACTED, "nights": 1}],
        "by_room": {"12": {"name": REDACTED, "nights": 3}},
        "passport": REDACTED,
        "phone": REDACTED,
        "deposit": REDACTED,
        "notes": {"late": True},
    }


def test_what_came_as_text_goes_as_text():
    shown = redacted_body(RoomBooked, json.dumps(BODY).encode())

    assert json.loads(shown) == redacted_body(RoomBooked, BODY)


def test_an_undeclared_field_is_redacted():
    shown = redacted_body(
        RoomBooked, {"booking_id": "b-1", "gest": {"name": "Ada"}, "guest": {"name": "Ada", "mail": "a@b.c"}}
    )

    assert shown == {"booking_id": "b-1", "gest": REDACTED, "guest": {"name": REDACTED, "mail": REDACTED}}


def test_a_value_of_an_undeclared_type_is_redacted():
    shown = redacted_body(RoomBooked, {"booking_id": ["Ada"], "guest": "Ada", "others": {"name": "Ada"}})

    assert shown == {"booking_id": REDACTED, "guest": REDACTED, "others": REDACTED}


def test_a_recursive_model_is_redacted_at_every_depth():
    shown = redacted_body(BunkTaken, {"bed": {"sleeper": "Ada", "below": {"sleeper": "Mary", "below": None}}})

    assert shown == {"bed": {"sleeper": REDACTED, "below": {"sleeper": REDACTED, "below": None}}}


@pytest.mark.parametrize("body", [b"", b"Ada", b"[1]", b'{"name": "Ada"', b"\xff", "[" * 100_000])
def test_what_is_no_event_is_not_shown(body):
    assert redacted_body(RoomBooked, body) == NO_OBJECT
    assert redacted_object(RoomBooked, body) is None


def test_an_unknown_event_is_not_shown():
    assert redacted_body(None, b'{"name": "Ada"}') == UNKNOWN
    assert redacted_body(None, {"name": "Ada"}) == {"name": REDACTED}
    assert redacted_object(None, b'{"name": "Ada"}') is None


def test_the_contract_names_the_sensitive_fields():
    assert event_contract(RoomBooked).sensitive == (
        "guest.name", "others.*.name", "by_room.*.name", "passport", "phone", "deposit"
    )  # fmt: skip
    assert sensitive_paths(event_contract(BunkTaken).json_schema) == ("bed.sleeper",)


def test_an_event_without_sensitive_fields_is_shown_whole():
    class RoomFreed(Event, owner="desk"):
        booking_id: str

    assert not has_sensitive_fields(RoomFreed)
    assert redacted_body(RoomFreed, {"booking_id": "b-1"}) == {"booking_id": "b-1"}


def test_an_event_without_a_schema_is_redacted_whole():
    class Odd:
        pass

    class OddlyBooked(Event, owner="desk"):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        booking_id: str
        odd: Odd

    assert redacted_body(OddlyBooked, {"booking_id": "b-1"}) == {"booking_id": REDACTED}


def test_what_lies_too_deep_is_redacted():
    inmost: dict[str, Any] = {"deep": 1}
    for _ in range(500):
        inmost = {"in": inmost}

    shown = redacted_body(RoomBooked, BODY | {"notes": inmost})

    assert REDACTED in str(shown["notes"])
    assert "deep" not in str(shown["notes"])


class Left(BaseModel):
    kind: Literal["left"] = "left"
    below: Left | Right | None = None


class Right(BaseModel):
    kind: Literal["right"] = "right"
    below: Left | Right | None = None


class TreeGrown(Event, owner="garden"):
    tree: Left | Right


def test_a_recursive_union_is_followed_once_per_depth():
    tree: dict[str, Any] = {"kind": "left"}
    for _ in range(60):  # alternatives that doubled at each depth would never end
        tree = {"kind": "right", "below": tree}

    assert redacted_body(TreeGrown, {"tree": tree}) == {"tree": tree}
