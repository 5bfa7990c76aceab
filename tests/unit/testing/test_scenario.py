"""A scenario plays one interleaving of real services, whose messages wait until the test delivers them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.demo import SERVICES
from tests.choreography_model import BAD, GOOD, START, Steps, step
from tests.example_sagas import approval
from tests.example_sagas.drawn import services_of
from tests.example_sagas.travel import Script
from tests.example_sagas.vouchers import services_of_both
from toolkit.errors import ScenarioError
from toolkit.testing import Scenario

#: Two joins with deadlines, and a step with one whose event is never late.
DEADLINES: Steps = {
    "left": step(START, "Left", "NoLeft"),
    "right": step(START, "Right", "NoRight"),
    "both": step("Left & Right", "Both", "NoBoth", has_deadline=True),
    "again": step("Left & Right", GOOD, "NotAgain", has_deadline=True),
    "sure": step("Right", "Sure", "NotSure", has_deadline=True),
    "fail": step("NoLeft|NoRight|NoBoth|NotAgain|NotSure", BAD),
}


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
    await order.deliver("PaymentFailed", to="inventory")

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


async def test_only_the_named_steps_deadline_passes(tmp_path: Path) -> None:
    async with Scenario(services_of(DEADLINES), directory=tmp_path) as scenario:
        for service in ("left", "right"):
            await scenario.deliver("Start", to=service)
        await scenario.deliver("Left", to="both")
        await scenario.deliver("Left", to="again")
        await scenario.expire("both", "both")
        await scenario.deliver("Right", to="sure")
        await scenario.deliver("Right", to="again")

        assert scenario.states["both", "both"] == "failed"
        assert scenario.states["sure", "sure"] == "confirmed"
        assert scenario.states["again", "again"] == "confirmed"


async def test_deadlines_pass_one_after_the_other(tmp_path: Path) -> None:
    async with Scenario(services_of(DEADLINES), directory=tmp_path) as scenario:
        await scenario.deliver("Start", to="left")
        for service in ("both", "again"):
            await scenario.deliver("Left", to=service)
        for service in ("both", "again"):
            await scenario.expire(service, service)

        assert scenario.states["both", "both"] == "failed"
        assert scenario.states["again", "again"] == "failed"


async def test_an_event_comes_after_its_deadline(tmp_path: Path) -> None:
    async with Scenario(services_of(DEADLINES), directory=tmp_path) as scenario:
        await scenario.expire("sure", "sure")
        await scenario.deliver("Start", to="right")
        await scenario.deliver("Right", to="sure")

        assert scenario.states["sure", "sure"] == "failed"


async def test_an_answer_has_to_be_given_first(tmp_path: Path) -> None:
    async with Scenario(approval.services(Script()), directory=tmp_path) as scenario:
        with pytest.raises(ScenarioError, match=r'no Approved was given: give it by scenario\.answer\("Approved"\)'):
            await scenario.deliver("Approved", to="desk")

        scenario.answer("Approved")
        await scenario.deliver("PurchaseWanted", to="quotes")
        await scenario.deliver("Approved", to="desk")
        assert await scenario.violations() == []


async def test_an_unknown_name_in_a_scenario_is_an_error(order: Scenario) -> None:
    with pytest.raises(ScenarioError, match=r"no step reserve in inventory.*reserve_inventory"):
        order.refuse("inventory", "reserve", "InventoryUnavailable")
    with pytest.raises(ScenarioError, match=r"reserve_inventory.*OutOfStock.*refuses with"):
        order.refuse("inventory", "reserve_inventory", "OutOfStock")
    with pytest.raises(ScenarioError, match=r"no service inventry.*inventory"):
        await order.deliver("OrderCreated", to="inventry")
    with pytest.raises(ScenarioError, match=r"no event OrderPlaced.*OrderCreated"):
        await order.deliver("OrderPlaced", to="inventory")
    with pytest.raises(ScenarioError, match=r"no answer OrderCreated.*declares none"):
        order.answer("OrderCreated")
    with pytest.raises(ScenarioError, match=r"send_cancellation_notice \(notification\) has no timeout"):
        await order.expire("notification", "send_cancellation_notice")
