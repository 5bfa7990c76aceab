"""The AsyncAPI document is valid by AsyncAPI's own schema, self-contained and complete."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
import pytest
from pydantic import BaseModel, Field

from examples.approval.demo import DEMO as PURCHASE
from examples.orchestrated.fulfillment.app import app as fulfillment
from services.events import OrderCreated
from services.inventory.app import app as inventory
from services.notification.app import app as notification
from services.payment.app import app as payment
from services.shipping.app import app as shipping
from tests.example_sagas.travel import Script
from tests.example_sagas.travel import services as travel
from toolkit import Event, Participant, Saga, SagaId, Sensitive, Service
from toolkit.declaration.contract import Contract
from toolkit.messaging import envelope
from toolkit.messaging.asyncapi import asyncapi

SCHEMA = Path(__file__).parents[2] / "schemas" / "asyncapi-3.1.0.json.gz"
#: Lines, joins, answers, and a coordinator.
SERVICES = (inventory, payment, shipping, notification, *travel(Script()), *PURCHASE.services, fulfillment)


class ByCard(BaseModel):
    kind: Literal["card"]
    number: Annotated[str, Sensitive]


class ByCash(BaseModel):
    kind: Literal["cash"]


class Node(BaseModel):
    below: list[Node] = Field(default_factory=list)


class RentPaid(Event, owner="tenant"):
    rent_id: SagaId
    how: Annotated[ByCard | ByCash, Field(discriminator="kind")]
    card: Annotated[ByCard, Sensitive, Field(description="the card itself")]
    tree: Node
    discriminator: str = ""


class RentNoted(Event, owner="desk", optional=True):
    rent_id: SagaId


RENT = Saga(name="rent", id_field="rent_id", starts_with=RentPaid, completes_with=RentNoted, fails_with=RentNoted)


async def note_rent(event: RentPaid) -> RentNoted:
    return RentNoted(rent_id=event.rent_id)


@pytest.fixture(scope="module")
def schema() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(json.loads(gzip.decompress(SCHEMA.read_bytes())))


@pytest.fixture
def desk() -> Service:
    participant = Participant("desk", saga=RENT)
    participant.step()(note_rent)
    return Service(name="desk", participants=[participant])


def document_of(service: Service) -> dict[str, Any]:
    document = asyncapi(Contract.of(service), exchange="saga", queue=f"saga.{service.name}")
    return json.loads(json.dumps(document))


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from [part["$ref"]] if "$ref" in part else []
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from references(each)


def found(document: dict[str, Any], reference: str) -> Any:
    """Return the target of a reference; names have no slash."""
    start, *path = reference.split("/")
    assert start == "#"
    for name in path:
        document = document[name]
    return document


def test_the_document_names_the_schemas_version():
    assert document_of(payment)["asyncapi"] == SCHEMA.name.removeprefix("asyncapi-").removesuffix(".json.gz")


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_the_document_is_valid_asyncapi(schema, service):
    assert [f"{each.instance_path}: {each.message}" for each in schema.iter_errors(document_of(service))] == []


def test_unions_and_recursive_models_are_valid(schema, desk):
    document = document_of(desk)

    assert [f"{each.instance_path}: {each.message}" for each in schema.iter_errors(document)] == []
    assert document["components"]["schemas"]["RentPaid"]["properties"]["card"] == {
        "allOf": [{"$ref": "#/components/schemas/RentPaid.ByCard"}],
        "description": "the card itself",
        "x-sensitive": True,
    }


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_each_reference_resolves_within_the_document(service):
    document = document_of(service)

    assert all(found(document, reference) for reference in references(document))


def test_operations_are_consumed_and_emitted_events():
    document = document_of(payment)

    assert list(document["operations"]) == [
        "receive.InventoryReserved", "receive.ShipmentFailed", "receive.ShipmentCancelled", "receive.SagaEnded",
        "receive.AbortRequested", "receive.EndRequested", "receive.SagaWaits", "send.PaymentProcessed",
        "send.PaymentFailed", "send.PaymentRefunded", "send.AbortRequested", "send.EndRequested", "send.SagaWaits",
    ]  # fmt: skip
    assert "send.SagaEnded" in document_of(notification)["operations"]
    assert document["operations"]["receive.ShipmentFailed"]["x-handlers"] == [
        {"name": "refund_payment", "kind": "compensation", "saga": "order"}
    ]


def test_channels_are_routing_keys_and_a_quorum_queue():
    channels = document_of(payment)["channels"]

    consumed = channels["inventory.InventoryReserved"]
    assert consumed["address"] == "inventory.InventoryReserved"
    assert consumed["bindings"]["amqp"]["exchange"] == {
        "name": "saga", "type": "topic", "durable": True, "autoDelete": False
    }  # fmt: skip
    queue = channels["queue"]["bindings"]["amqp"]["queue"]
    assert (queue["name"], queue["x-arguments"]) == ("saga.payment", {"x-queue-type": "quorum"})


def test_a_starting_event_carries_the_saga_id_itself():
    messages = document_of(inventory)["components"]["messages"]

    assert messages["OrderCreated"]["correlationId"]["location"] == "$message.payload#/order_id"
    assert messages["InventoryReserved"]["correlationId"]["location"] == "$message.header#/correlation_id"
    assert "correlation_id" in document_of(inventory)["components"]["schemas"]["Envelope"]["properties"]


def test_an_example_matches_its_schema():
    document = document_of(inventory)
    (example,) = document["components"]["messages"]["OrderCreated"]["examples"]

    whole = document["components"] | {"$ref": "#/schemas/OrderCreated"}
    there = json.loads(json.dumps(whole).replace("#/components/schemas/", "#/schemas/"))

    assert OrderCreated.model_validate(example["payload"])
    assert jsonschema_rs.is_valid(there, example["payload"])
    assert not jsonschema_rs.is_valid(there, example["payload"] | {"items": []})


def test_sensitive_fields_are_marked():
    components = document_of(inventory)["components"]

    assert "customer_email" in components["messages"]["OrderCreated"]["x-sensitive"]
    assert components["schemas"]["OrderCreated"]["properties"]["customer_email"]["x-sensitive"] is True
    assert components["schemas"]["OrderCreated.Address"]["properties"]["street"]["x-sensitive"] is True


def test_the_document_lists_each_envelope_header():
    properties = document_of(payment)["components"]["schemas"]["Envelope"]["properties"]

    known = {value for name, value in vars(envelope).items() if name.isupper() and isinstance(value, str)}
    assert {name for name, each in properties.items() if "x-amqp-property" not in each} == known
