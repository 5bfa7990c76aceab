"""The graph of a choreography: the order of its steps follows from the events that they consume and emit."""

from __future__ import annotations

import pytest

from services.inventory.app import app as inventory
from services.notification.app import app as notification
from services.payment.app import app as payment
from services.shipping.app import app as shipping
from tests.example_sagas import approval
from tests.example_sagas.travel import Script
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


def test_the_events_decide_the_order_of_the_steps(choreography):
    names = [node.name for node in choreography.nodes_of(ORDER)]

    assert names == FORWARD + BACKWARD


def test_no_step_refuses_on_the_forward_path(choreography):
    names = [node.name for node in choreography.forward(ORDER)]

    assert names == FORWARD


@pytest.mark.parametrize("undone", [0, 1, 2, 3])
def test_a_refusal_undoes_earlier_steps_in_reverse(choreography, undone):
    refusing = choreography.forward(ORDER)[undone]

    compensation_events = choreography.reached_from(refusing.refusals[0], ORDER)

    assert [node.step for node in compensation_events if node.is_compensation] == FORWARD[:undone][::-1]


def test_edges_join_the_saga_to_the_outside_world(choreography):
    edges = choreography.edges(ORDER)

    assert [(edge.event, edge.listener.name) for edge in edges if not edge.emitter] == [
        ("OrderCreated", "reserve_inventory")
    ]
    assert [edge.event for edge in edges if not edge.listener] == ["OrderFulfilled", "OrderFailed"]


def test_the_text_names_steps_services_and_consumers(choreography):
    page = as_text(choreography)

    assert "saga order: OrderCreated → OrderFulfilled | OrderFailed" in page
    assert "→ process_payment (payment)\n    on InventoryReserved\n    ✓ PaymentProcessed → create_shipment" in page
    assert "↩ refund_payment (payment, undoes process_payment)\n    on ShipmentFailed, ShipmentCancelled" in page
    assert "✓ OrderFailed → the saga has failed" in page


def test_the_chart_draws_compensation_paths_dashed(choreography):
    chart = as_mermaid(choreography).splitlines()

    assert chart[0] == "flowchart LR"
    assert "    OrderCreated([OrderCreated]) --> reserve_inventory" in chart
    assert "    reserve_inventory --> |InventoryReserved| process_payment" in chart
    assert "    process_payment -.-> |PaymentFailed| release_inventory" in chart
    assert "    send_confirmation --> OrderFulfilled([OrderFulfilled])" in chart


def test_the_chart_draws_answers_from_outside():
    chart = as_mermaid(Choreography(approval.services(Script()))).splitlines()

    arrows = [line.strip() for line in chart if line.endswith(" decide")]
    assert arrows == [
        "Approved([Approved]) --> decide",
        "Declined([Declined]) --> decide",
        "quote --> |PriceQuoted| decide",
    ]


def test_two_sagas_on_one_exchange_are_drawn_separately(choreography):
    claims = Participant("claims", saga=LOSS)
    claims.step()(pay_parcel)

    both = Choreography([*choreography.contracts, Service(name="claims", participants=[claims])])

    assert [node.name for node in both.nodes_of(both.saga("loss"))] == ["pay_parcel"]
    assert [node.name for node in both.nodes_of(ORDER)] == FORWARD + BACKWARD
    assert "saga loss: ParcelLost → ParcelPaid | ParcelPaid" in as_text(both)
