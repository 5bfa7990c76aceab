"""A contract describes a service completely: a client needs none of its code."""

from __future__ import annotations

from datetime import timedelta

from services.events import OrderCreated
from services.inventory.app import app as inventory
from services.notification.app import app as notification
from services.payment.app import app as payment
from services.shipping.app import app as shipping
from tests.unit.declaration.visits import TableFreed, TableKept, TableRefused, TableWanted, visit_saga
from toolkit import Participant, Service
from toolkit.declaration.choreography import Choreography, as_mermaid, as_text
from toolkit.declaration.contract import Contract, HandlerContract, SlotContract

SERVICES = (inventory, payment, shipping, notification)


def test_a_contract_survives_being_sent():
    for service in SERVICES:
        contract = Contract.of(service)

        assert Contract.model_validate_json(contract.model_dump_json()) == contract


def test_contracts_and_declarations_form_the_same_choreography():
    sent = [Contract.model_validate_json(Contract.of(service).model_dump_json()) for service in SERVICES]

    assert as_text(Choreography(sent)) == as_text(Choreography(SERVICES))
    assert as_mermaid(Choreography(sent)) == as_mermaid(Choreography(SERVICES))


def test_a_contract_names_consumed_and_emitted_events():
    contract = Contract.of(payment)

    assert [event.name for event in contract.consumed()] == ["InventoryReserved", "ShipmentFailed", "ShipmentCancelled"]
    assert [event.name for event in contract.emitted()] == ["PaymentProcessed", "PaymentFailed", "PaymentRefunded"]
    assert contract.events.keys() == {event.name for event in (*contract.consumed(), *contract.emitted())}


def test_a_contract_has_each_handlers_policy():
    process, refund = Contract.of(payment).handlers

    assert (process.name, process.kind, process.of, process.saga) == ("process_payment", "step", None, "order")
    assert (process.success, process.refusals) == ("PaymentProcessed", ("PaymentFailed",))
    assert (process.timeout, process.external) == (30.0, True)
    assert (refund.kind, refund.of, refund.timeout) == ("compensation", "process_payment", None)
    assert process.description.startswith("Take the money")


def test_a_contract_says_what_reads_its_original():
    contracts = [Contract.of(service) for service in SERVICES]

    handlers = [each for contract in contracts for each in contract.handlers]

    assert {each.name for each in handlers if each.original} == {"release_inventory", "refund_payment"}
    assert [each.name for each in handlers if each.original is None] == []


def test_a_contract_of_an_older_release_is_read():
    facts = Contract.of(payment).model_dump(mode="json")
    for each in facts["handlers"]:
        del each["original"]
    for each in facts["events"].values():
        del each["upcasters"]

    read = Contract.model_validate(facts)

    assert {each.original for each in read.handlers} == {None}
    assert {each.upcasters for each in read.events.values()} == {()}


def test_a_contract_has_each_handlers_slots():
    waiter = Participant("waiter", saga=visit_saga)

    @waiter.step()
    async def seat(guest: TableWanted, dish: TableKept | TableRefused) -> TableFreed: ...

    (joining,) = Contract.of(Service(name="waiter", participants=[waiter])).handlers
    alone = Contract.of(payment).handlers[1]

    assert joining.slots == (
        SlotContract(name="guest", events=("TableWanted",)),
        SlotContract(name="dish", events=("TableKept", "TableRefused")),
    )
    assert joining.is_join
    assert joining.triggers == ("TableWanted", "TableKept", "TableRefused")
    assert alone.slots == (SlotContract(name="event", events=("ShipmentFailed", "ShipmentCancelled")),)
    assert not alone.is_join


def test_a_contract_of_an_older_release_has_one_slot():
    sent = Contract.of(payment).handlers[1].model_dump(mode="json")
    del sent["slots"]

    assert HandlerContract.model_validate(sent) == Contract.of(payment).handlers[1]


def test_a_contract_shows_an_overridden_timeout():
    contract = Contract.of(payment, timeouts={"process_payment": timedelta(seconds=5)})

    assert contract.handlers[0].timeout == 5.0


def test_a_contract_has_schema_example_and_sensitive_fields():
    event = Contract.of(inventory).events["OrderCreated"]

    assert (event.owner, event.routing_key, event.version) == ("order", "order.OrderCreated", 1)
    assert event.json_schema["properties"].keys() == OrderCreated.model_fields.keys()
    assert event.example["order_id"] == "order-1001"
    assert event.description.startswith("A customer has ordered")
    assert event.sensitive == (
        "customer_email", "payment_method", "shipping_address.name", "shipping_address.street",
        "shipping_address.postal_code",
    )  # fmt: skip


def test_the_owners_declaration_of_an_event_counts():
    contract = Contract.of(shipping)
    old = contract.events["PaymentProcessed"].model_copy(update={"version": 7})
    wrong = contract.model_copy(update={"events": contract.events | {"PaymentProcessed": old}})

    assert Choreography([wrong, payment]).event("PaymentProcessed").version == 1
    assert Choreography([wrong]).event("PaymentProcessed").version == 7
    assert Choreography([wrong]).event("NoSuch") is None


def test_a_contract_has_the_events_that_an_application_starts_with():
    contract = Contract.of(Service(name="shop", starts=[visit_saga]))

    assert (contract.sagas, contract.starts) == ((), ("TableWanted",))
    assert [event.name for event in contract.emitted()] == ["TableWanted"]
