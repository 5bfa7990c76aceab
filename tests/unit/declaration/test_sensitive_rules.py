"""A mark reaches the JSON schema, or the declaration is refused with the cure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, NewType, TypeVar

import pytest
from pydantic import BaseModel, Field, Json, SecretStr, StringConstraints, WithJsonSchema, computed_field
from typing_extensions import TypeAliasType, TypedDict

from toolkit import Event, SagaId, Sensitive
from toolkit.declaration.redaction import has_sensitive_fields, redacted_body
from toolkit.declaration.sensitive_rules import sensitive_faults
from toolkit.declaration.text_redaction import redact
from toolkit.errors import DeclarationError

SECRET = "h-u-s-h-h-u-s-h"
Card = Annotated[str, Sensitive]
CardType = NewType("CardType", Card)
Number = NewType("Number", str)
CardAlias = TypeAliasType("CardAlias", Card)
T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


class Payer(BaseModel):
    card: Card


@dataclass
class Holder:
    card: Card


class Slip(TypedDict):
    card: Card


class Pair(NamedTuple):
    card: Card
    name: str


def event_with(annotation: object, **namespace: object) -> type[Event]:
    """Return an event with a field of this type."""
    attributes = {"__annotations__": {"field": annotation}, "__module__": __name__, **namespace}
    return type("CardShown", (Event,), attributes, owner="client")


KEPT = {
    "plain": (Card, SECRET),
    "an instance": (Annotated[str, Sensitive()], SECRET),
    "optional": (Card | None, SECRET),
    "marked optional": (Annotated[str | None, Sensitive], SECRET),
    "list": (list[Card], [SECRET]),
    "tuple": (tuple[int, Card], [1, SECRET]),
    "set": (frozenset[Card], [SECRET]),
    "sequence": (Sequence[Card], [SECRET]),
    "map": (dict[str, Card], {"a": SECRET}),
    "map by pattern": (dict[Annotated[str, StringConstraints(pattern="^a")], Card], {"a": SECRET}),
    "union": (int | Card, SECRET),
    "union of models": (int | Payer, {"card": SECRET}),
    "new type": (CardType, SECRET),
    "marked new type": (Annotated[Number, Sensitive], SECRET),
    "alias": (list[CardAlias], [SECRET]),
    "generic": (Box[Card], {"content": SECRET}),
    "generic of a model": (Box[Payer], {"content": {"card": SECRET}}),
    "model": (Payer, {"card": SECRET}),
    "marked model": (Annotated[Box[str], Sensitive], {"content": SECRET}),
    "dataclass": (Holder, {"card": SECRET}),
    "typed dict": (Slip, {"card": SECRET}),
    "named tuple": (Pair, [SECRET, "Ada"]),
    "deep": (dict[str, list[Payer | None]], {"a": [None, {"card": SECRET}]}),
    "json": (Json[Card], json.dumps(SECRET)),
    "with a schema before": (Annotated[str, WithJsonSchema({"type": "string"}), Sensitive], SECRET),
    "with constraints": (Annotated[str, Sensitive, StringConstraints(min_length=1), Field(max_length=99)], SECRET),
    "with an alias": (Annotated[str, Sensitive, Field(alias="field")], SECRET),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_a_mark_reaches_the_json_schema(name):
    annotation, value = KEPT[name]
    event_type = event_with(annotation)
    body = {"field": value}
    event_type.model_validate_json(json.dumps(body))

    assert list(sensitive_faults(event_type)) == []
    assert has_sensitive_fields(event_type)
    assert SECRET not in json.dumps(redacted_body(event_type, body))
    assert SECRET not in redact(event_type, json.dumps(body), f"it ate {value!r}, {SECRET!r}")


LOST = {
    "a map's keys": dict[Card, str],
    "keys and values": dict[Card, Card],
    "a model in JSON in a text": Json[list[Card]],
    "a schema behind": Annotated[str, Sensitive, WithJsonSchema({"type": "string"})],
    "one schema of two": tuple[Card, Annotated[str, Sensitive, WithJsonSchema({"type": "string"})]],
    "a schema that denies it": Annotated[str, Sensitive, Field(json_schema_extra={"x-sensitive": False})],
    "a class": type[Card],
    "no schema": Annotated[Callable[[], None], Sensitive],
    "within a model": Box[dict[Card, int]],
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_mark_is_refused_with_its_cure(name):
    ((fault, cure), *_) = sensitive_faults(event_with(LOST[name]))

    assert ".field is sensitive" in fault or ".content is sensitive" in fault or "has no JSON schema" in fault
    assert "Sensitive" in cure or "types that JSON can hold" in cure


def test_a_subclass_that_drops_a_mark_is_refused():
    class Paid(Event, owner="client"):
        card: Card

    class PaidAgain(Paid, owner="client"):
        card: str

    ((fault, cure),) = sensitive_faults(PaidAgain)
    assert fault == "PaidAgain.card is sensitive in the class that it inherits from"
    assert cure == "Repeat the mark: `Annotated[…, Sensitive]`"


def test_a_mark_on_a_computed_field_is_refused():
    class Paid(Event, owner="client"):
        digits: str

        @computed_field
        @property
        def card(self) -> Card:
            return self.digits

    ((fault, _),) = sensitive_faults(Paid)
    assert fault == "Paid.card is computed, and no JSON schema holds its mark"


def test_a_mark_for_a_default_is_refused():
    ((fault, cure),) = sensitive_faults(event_with(Any, field=Sensitive))

    assert fault == "CardShown.field has the mark as its default"
    assert cure == "Write it into the type: `Annotated[…, Sensitive]`"


@pytest.mark.parametrize("declare", [lambda: Sensitive[SecretStr], lambda: event_with(Sensitive)])
def test_the_mark_itself_is_no_type(declare):
    with pytest.raises(DeclarationError, match=r"it is a mark, not a type.*Annotated"):
        declare()


def test_a_recursive_model_can_be_checked():
    class RequestBody(Event, owner="client"):
        order_id: SagaId
        parts: tuple[RequestBody, ...] = ()
        card: Card

    RequestBody.model_rebuild(_types_namespace={"Order": RequestBody, **globals()})

    assert list(sensitive_faults(RequestBody)) == []
