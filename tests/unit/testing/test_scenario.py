"""A scenario plays one interleaving of real services, whose messages wait until the test delivers them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.demo import SERVICES
from tests.example_sagas.travel import Script
from tests.example_sagas.vouchers import services_of_both
from toolkit.testing import Scenario


@pytest.fixture
async def order(tmp_path: Path) -> AsyncIterator[Scenario]:
    async with Scenario(SERVICES, directory=tmp_path) as scenario:
        yield scenario


async def test_all_that_waits_is_delivered_in_the_end(order: Scenario) -> None:
    assert await order.violations() == []

    assert order.states["notification", "send_confirmation"] == "confirmed"


async def test_a_refusal_compensates_in_order(order: Scenario) -> None:
    order.refuse("shipping", "create_shipment", "ShipmentFailed")

    assert await order.violations() == []

    assert order.states["inventory", "reserve_inventory"] == "compensated"
    assert order.states["notification", "send_cancellation_notice"] == "completed"


async def test_no_message_arrives_before_its_delivery(order: Scenario) -> None:
    await order.deliver("OrderCreated", to="inventory")

    assert order.states == {("inventory", "reserve_inventory"): "completed"}


async def test_a_message_can_be_delivered_again(order: Scenario) -> None:
    for _ in range(3):
        await order.deliver("OrderCreated", to="inventory")
    await order.deliver("NotEmittedYet", to="inventory")

    assert await order.violations() == []


async def test_an_abort_fences_where_it_is_delivered(order: Scenario) -> None:
    order.abort()
    await order.deliver("AbortRequested", to="shipping")
    await order.deliver("OrderCreated", to="inventory")
    await order.deliver("InventoryReserved", to="payment")

    assert order.states["shipping", "create_shipment"] == "fenced"
    assert order.states["payment", "process_payment"] == "completed"
    assert await order.violations() == []
    assert order.states["payment", "process_payment"] == "compensated"


async def test_a_scenario_plays_the_saga_it_names(tmp_path: Path) -> None:
    async with Scenario(services_of_both(Script()), directory=tmp_path, saga="voucher") as scenario:
        assert await scenario.violations() == []

        assert {step for _, step in scenario.states} == {"set_night_aside", "hold_seat", "send_voucher"}
