"""An event that the next service could not read is refused where it is declared."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

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
    StringConstraints,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel

from toolkit import DeclarationError, Event, Participant, Refusal, Saga, SagaId
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


def is_accepted(told: type[Event]) -> bool:
    """Whether a step may take or return the event."""
    try:
        check_event("a.step", told, parcel_saga())
    except DeclarationError:
        return False
    return True


def event(base: type[Event] = Event, config: ConfigDict | None = None, **fields: Any) -> type[Event]:
    """Return a class of an event with these fields, beside the saga's id unless that is one of them."""
    known: Any = {"parcel_id": (SagaId, ...)} | fields
    model = create_model("Told", __base__=base, __cls_kwargs__={"owner": "courier"}, **known)
    if config:
        model.model_config = {**model.model_config, **config}
        model.model_rebuild(force=True)
    return model


# -- the saga's id -------------------------------------------------------------------------------------------------


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
def test_a_field_that_takes_no_ids_is_refused(kind: Any, probe: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        check_event("a.step", event(parcel_id=(kind, ...)), parcel_saga())

    assert caught.value.function == "a.step"
    assert caught.value.fault == f"Told.parcel_id takes {probe}, which can't be a saga's id"
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
def test_a_field_that_takes_ids_alone_is_allowed(kind: Any) -> None:
    assert is_accepted(event(parcel_id=(kind, ...)))


def test_an_authors_own_validator_may_keep_ids_sound() -> None:
    class Told(Event, owner="courier"):
        parcel_id: str

        @field_validator("parcel_id")
        @classmethod
        def is_a_number(cls, value: str) -> str:
            return str(int(value) if int(value) >= 0 else 1 // 0)

    assert is_accepted(Told)


def test_an_event_without_the_id_is_known_by_its_envelope() -> None:
    class Told(Event, owner="courier"):
        note: str

    assert is_accepted(Told)


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
        (parcel_saga(Free), "Free.parcel_id takes 'ORD/2024/001', which can't be a saga's id"),
    ],
)
def test_a_saga_that_its_messages_cannot_name_is_refused(saga: Saga, fault: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        Participant("courier", saga=saga)

    assert caught.value.function == f"Saga {saga.name!r}"
    assert caught.value.fault == fault


@pytest.mark.parametrize("name", ["", "a\nb", "a:b", "a" * 65, ".a"])
def test_a_saga_without_a_plain_name_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match="its name is no plain word"):
        parcel_saga(name=name)


# -- JSON that another reads ---------------------------------------------------------------------------------------


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
    (event(note=(str, Field(alias="n"))), "Told.note is written to JSON as 'note', and not read under that name"),
    (event(note=(str, Field(validation_alias="n"))), "Told.note is written to JSON as 'note'"),
    (event(note=(str, Field(validation_alias=AliasPath("n", 0)))), "Told.note is written to JSON as 'note'"),
    (Camel, "Camel.parcel_id is written to JSON as 'parcel_id', and not read under that name"),
    (
        event(note=(str, Field(serialization_alias="n")), config={"serialize_by_alias": True}),
        "Told.note is written to JSON as 'n'",
    ),
    (event(note=(str, Field("", exclude=True))), "Told.note is excluded from the JSON"),
    (event(note=(SecretStr, ...)), "Told.note is a secret, which is written to JSON as asterisks"),
    (event(notes=(dict[str, Annotated[SecretStr | None, Field()]], ...)), "Told.notes is a secret"),
    (event(box=(Box, ...)), "Box.weight is written to JSON as 'weight', and not read under that name"),
    (event(boxes=(tuple[Box, ...] | None, None)), "Box.weight is written to JSON as 'weight'"),
    (event(node=(Node, ...)), "Node.secret is a secret"),
    (event(box=(Annotated[Forgetful, Field()] | int, 1)), "Forgetful.seen is excluded from the JSON"),
]


@pytest.mark.parametrize(("told", "fault"), UNREAD)
def test_a_field_that_json_loses_is_refused(told: type[Event], fault: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        check_event("a.step", told, parcel_saga())

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
    "told",
    [
        Unveiled,
        UnveiledWhole,
        event(note=(str, Field(serialization_alias="n"))),
        event(note=(str, Field(alias="n")), config={"serialize_by_alias": True}),
        event(note=(str, Field(alias="n")), config={"validate_by_name": True, "validate_by_alias": False}),
        event(note=(str, Field(alias="n")), config={"populate_by_name": True}),
        event(note=(str, Field(validation_alias=AliasChoices("n", "note")))),
    ],
)
def test_names_that_are_written_as_they_are_read_are_allowed(told: type[Event]) -> None:
    assert is_accepted(told)


def test_an_event_whose_example_does_not_survive_is_refused() -> None:
    class Told(Event, owner="courier"):
        model_config = ConfigDict(json_schema_extra={"examples": [{"parcel_id": "p-1", "weight": 1.5}]})

        parcel_id: SagaId
        weight: Annotated[float, PlainSerializer(lambda weight: f"{weight} kg")]

    with pytest.raises(DeclarationError, match=r"its documented example shows: .* \(weight: float_parsing\)"):
        check_event("a.step", Told, parcel_saga())


def test_an_event_with_computed_fields_that_it_forbids_is_refused() -> None:
    class Told(Event, owner="courier"):
        model_config = ConfigDict(extra="forbid")

        parcel_id: SagaId

        @computed_field
        def label(self) -> str:
            return f"parcel {self.parcel_id}"

    with pytest.raises(DeclarationError, match=r"Told\.label is computed, and extra='forbid' refuses it in the JSON"):
        check_event("a.step", Told, parcel_saga())


def test_a_routing_key_that_amqp_cannot_carry_is_refused() -> None:
    told = create_model("T" * 250, __base__=Event, __cls_kwargs__={"owner": "courier"}, parcel_id=(SagaId, ...))

    with pytest.raises(DeclarationError, match="has more than 255 bytes"):
        check_event("a.step", told, parcel_saga())


# -- what the toolkit builds itself --------------------------------------------------------------------------------


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
def test_a_refusal_that_the_toolkit_cannot_build_is_refused(refusal: type[Refusal], fault: str) -> None:
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
