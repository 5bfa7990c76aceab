"""An event's JSON holds each field, under the name under which it is read."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretBytes,
    SecretStr,
    computed_field,
    create_model,
    field_serializer,
    model_serializer,
)
from pydantic.alias_generators import to_camel

from tests.unit.declaration.parcels import event_class, is_accepted, parcel_saga
from toolkit import DeclarationError, Event, SagaId
from toolkit.declaration.event_rules import check_event


class Box(BaseModel):
    weight: int = Field(alias="w")


class Node(BaseModel):
    below: list[Node] = Field(default_factory=list)
    secret: SecretBytes | None = None


class Forgetful(BaseModel):
    seen: int = Field(0, exclude=True)


class Camel(Event, owner="courier"):
    model_config = ConfigDict(alias_generator=to_camel)

    parcel_id: SagaId


UNREAD = [
    (
        event_class(note=(str, Field(alias="n"))),
        "Sample.note is written to JSON as 'note', and not read under that name",
    ),
    (event_class(note=(str, Field(validation_alias="n"))), "Sample.note is written to JSON as 'note'"),
    (event_class(note=(str, Field(validation_alias=AliasPath("n", 0)))), "Sample.note is written to JSON as 'note'"),
    (Camel, "Camel.parcel_id is written to JSON as 'parcel_id', and not read under that name"),
    (
        event_class(note=(str, Field(serialization_alias="n")), config={"serialize_by_alias": True}),
        "Sample.note is written to JSON as 'n'",
    ),
    (event_class(note=(str, Field("", exclude=True))), "Sample.note is excluded from the JSON"),
    (event_class(note=(SecretStr, ...)), "Sample.note is a secret, which is written to JSON as asterisks"),
    (event_class(notes=(dict[str, Annotated[SecretStr | None, Field()]], ...)), "Sample.notes is a secret"),
    (event_class(box=(Box, ...)), "Box.weight is written to JSON as 'weight', and not read under that name"),
    (event_class(boxes=(tuple[Box, ...] | None, None)), "Box.weight is written to JSON as 'weight'"),
    (event_class(node=(Node, ...)), "Node.secret is a secret"),
    (event_class(box=(Annotated[Forgetful, Field()] | int, 1)), "Forgetful.seen is excluded from the JSON"),
]


@pytest.mark.parametrize(("event_type", "fault"), UNREAD)
def test_a_field_that_json_loses_is_refused(event_type: type[Event], fault: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        check_event("a.step", event_type, parcel_saga())

    assert caught.value.fault.startswith(fault)


class Unveiled(Event, owner="courier"):
    parcel_id: SagaId
    card: SecretStr

    @field_serializer("card")
    def unveil(self, card: SecretStr) -> str:
        return card.get_secret_value()


class UnveiledWhole(Event, owner="courier"):
    parcel_id: SagaId
    card: SecretStr

    @model_serializer
    def unveil(self) -> dict[str, str]:
        return {"parcel_id": self.parcel_id, "card": self.card.get_secret_value()}


@pytest.mark.parametrize(
    "event_type",
    [
        Unveiled,
        UnveiledWhole,
        event_class(note=(str, Field(serialization_alias="n"))),
        event_class(note=(str, Field(alias="n")), config={"serialize_by_alias": True}),
        event_class(note=(str, Field(alias="n")), config={"validate_by_name": True, "validate_by_alias": False}),
        event_class(note=(str, Field(alias="n")), config={"populate_by_name": True}),
        event_class(note=(str, Field(validation_alias=AliasChoices("n", "note")))),
    ],
)
def test_aliases_that_are_written_and_read_are_allowed(event_type: type[Event]) -> None:
    assert is_accepted(event_type)


def test_an_example_that_changes_in_json_is_refused() -> None:
    class Sample(Event, owner="courier"):
        model_config = ConfigDict(json_schema_extra={"examples": [{"parcel_id": "p-1", "weight": 1.5}]})

        parcel_id: SagaId
        weight: Annotated[float, PlainSerializer(lambda weight: f"{weight} kg")]

    with pytest.raises(DeclarationError, match=r"its documented example shows: .* \(weight: float_parsing\)"):
        check_event("a.step", Sample, parcel_saga())


def test_computed_fields_with_extra_forbidden_are_refused() -> None:
    class Sample(Event, owner="courier"):
        model_config = ConfigDict(extra="forbid")

        parcel_id: SagaId

        @computed_field
        def label(self) -> str:
            return f"parcel {self.parcel_id}"

    with pytest.raises(DeclarationError, match=r"Sample\.label is computed, and extra='forbid' refuses it in the JSON"):
        check_event("a.step", Sample, parcel_saga())


def test_a_routing_key_beyond_amqps_limit_is_refused() -> None:
    event_type = create_model("T" * 250, __base__=Event, __cls_kwargs__={"owner": "courier"}, parcel_id=(SagaId, ...))

    with pytest.raises(DeclarationError, match="has more than 255 bytes"):
        check_event("a.step", event_type, parcel_saga())
