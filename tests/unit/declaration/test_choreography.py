"""The graph of a choreography: the order of its steps follows from who hears whom."""

from __future__ import annotations

import pytest

from services.inventory.app import app as inventory
from services.notification.app import app as notification
from services.payment.app import app as payment
from services.shipping.app import app as shipping
from toolkit import Event, Participant, Saga, SagaId, Service
from toolkit.declaration.choreography import Choreography, as_mermaid, as_text
from toolkit.declaration.contract import Contract

FORWARD = ["reserve_inventory", "process_payment", "create_shipment", "send_confirmation"]
BACKWARD = ["cancel_shipment", "refund_payment", "release_inventory", "send_cancellation_notice"]


class ParcelLost(Event, owner="customer"):
    parcel_id: SagaId


class ParcelPaid(Event, owner="claims"):
    parcel_id: SagaId


ORDER = Contract.of(inventory).sagas[0]
LOSS = Saga(name="loss", id_field="parcel_id", starts_with=ParcelLost, completes_with=ParcelPaid, fails_with=ParcelPaid)


async def pay_parcel(event: ParcelLost) -> ParcelPaid:
    raise NotImplementedError


@pytest.fixture
def choreography() -> Choreography:
    return Choreography([shipping, notification, payment, inventory])


def test_the_order_of_the_steps_follows_from_the_events_and_not_from_the_declarations(choreography):
    names = [node.name for node in choreography.nodes_of(ORDER)]

    assert names == FORWARD + BACKWARD


def test_the_way_forward_is_that_on_which_nobody_refuses(choreography):
    names = [node.name for node in choreography.forward(ORDER)]

    assert names == FORWARD


@pytest.mark.parametrize("undone", [0, 1, 2, 3])
def test_a_refusal_undoes_what_was_done_before_it_in_strict_reverse_order(choreography, undone):
    refusing = choreography.forward(ORDER)[undone]

    compensation_events = choreography.reached_from(refusing.refusals[0], ORDER)

    assert [node.step for node in compensation_events if node.is_compensation] == FORWARD[:undone][::-1]


def test_an_edge_comes_from_the_world_outside_where_the_saga_begins_and_goes_there_where_it_ends(choreography):
    edges = choreography.edges(ORDER)

    assert [(edge.event, edge.listener.name) for edge in edges if not edge.emitter] == [
        ("OrderCreated", "reserve_inventory")
    ]
    assert [edge.event for edge in edges if not edge.listener] == ["OrderFulfilled", "OrderFailed"]


def test_the_page_names_each_step_its_service_and_who_hears_of_it(choreography):
    page = as_text(choreography)

    assert "saga order: OrderCreated → OrderFulfilled | OrderFailed" in page
    assert "→ process_payment (payment)\n    on InventoryReserved\n    ✓ PaymentProcessed → create_shipment" in page
    assert "↩ refund_payment (payment, undoes process_payment)\n    on ShipmentFailed, ShipmentCancelled" in page
    assert "✓ OrderFailed → the saga has failed" in page


def test_the_chart_draws_the_way_forward_solid_and_the_way_back_dashed(choreography):
    chart = as_mermaid(choreography).splitlines()

    assert chart[0] == "flowchart LR"
    assert "    OrderCreated([OrderCreated]) --> reserve_inventory" in chart
    assert "    reserve_inventory --> |InventoryReserved| process_payment" in chart
    assert "    process_payment -.-> |PaymentFailed| release_inventory" in chart
    assert "    send_confirmation --> OrderFulfilled([OrderFulfilled])" in chart


def test_two_sagas_on_one_exchange_are_drawn_each_by_itself(choreography):
    claims = Participant("claims", saga=LOSS)
    claims.step()(pay_parcel)

    both = Choreography([*choreography.contracts, Service(name="claims", participants=[claims])])

    assert [node.name for node in both.nodes_of(both.saga("loss"))] == ["pay_parcel"]
    assert [node.name for node in both.nodes_of(ORDER)] == FORWARD + BACKWARD
    assert "saga loss: ParcelLost → ParcelPaid | ParcelPaid" in as_text(both)
