"""The purchase's checks of budgets and orders: they hold, and they detect what is lost, or ordered without approval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from examples.approval.accounts import CHECKS, budgets_are_conserved, orders_are_approved
from examples.approval.demo import NO, YES
from tests.examples.conftest import embedded
from tests.examples.damaged import checked_after
from tests.examples.demos import DEMOS
from toolkit.cli.demonstration import End, Scenario
from toolkit.client.account_checks import AccountCheck
from toolkit.declaration.events import SagaState
from toolkit.errors import UnreachableError

COMPLETED, FAILED = SagaState.COMPLETED, SagaState.FAILED
STATES = {("purchase", "yes"): COMPLETED, ("purchase", "no"): FAILED}


@pytest.fixture
async def databases(tmp_path: Path) -> dict[str, str]:
    """The databases after a purchase that was approved, and one that was declined."""
    async with embedded(replace(DEMOS["approval"], settings={}), tmp_path) as running:
        for name, answer in {"yes": YES, "no": NO}.items():
            await running.play(Scenario(name, "", End(None), answers=(answer,)))
        await running.ended("yes", "no")
        return dict(running.urls)


async def test_checks_hold_and_show_their_figures(databases):
    results = [await each(databases, STATES) for each in CHECKS]

    assert [(each.holds, each.found) for each in results] == [
        (True, "4500.00 reserved, 1000005500.00 available"),
        (True, "1 ordered"),
    ]


@pytest.mark.parametrize(
    ("check", "service", "fault", "found"),
    [
        (
            budgets_are_conserved,
            "finance",
            "UPDATE department SET available = available + 1 WHERE name = 'SPENT'",
            "SPENT has 1 available and 0 reserved, of 0",
        ),
        (
            budgets_are_conserved,
            "finance",
            "UPDATE reservation SET is_released = NOT is_released WHERE purchase_id = 'no'",
            "WORKSHOP has 99999550000 available and 900000 reserved, of 100000000000",
        ),
        (
            orders_are_approved,
            "finance",
            "UPDATE reservation SET amount = 1",
            "yes is ordered for 450000; approved: 450000, reserved: 1",
        ),
        (orders_are_approved, "approvals", "DELETE FROM approval", "approved: None, reserved: 450000"),
        (
            orders_are_approved,
            "ordering",
            "DELETE FROM purchase_order",
            "yes ended Completed, and is approved, reserved",
        ),
        (
            orders_are_approved,
            "finance",
            "UPDATE reservation SET is_released = NOT is_released WHERE purchase_id = 'no'",
            "no ended Failed, and is reserved",
        ),
    ],
)
async def test_checks_detect_lost_budgets_and_unapproved_orders(
    databases: dict[str, str], check: AccountCheck, service: str, fault: str, found: str
):
    result = await checked_after(fault, check, databases, service, STATES)

    assert not result.holds
    assert found in result.found


@pytest.mark.parametrize("check", CHECKS)
async def test_finance_without_its_database_is_reported(databases, check):
    del databases["finance"]

    with pytest.raises(UnreachableError, match="name finance by its database"):
        await check(databases, {})
