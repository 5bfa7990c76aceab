"""Purchases in a world: an approver's answer comes at once, early, late or never."""

from __future__ import annotations

from datetime import timedelta

import pytest

from examples.approval.approvals import app as approvals
from examples.approval.events import Approved, BudgetRefused, Declined, PurchaseOrdered, PurchaseRequested
from examples.approval.finance import app as finance
from examples.approval.finance.models import Department
from examples.approval.ordering import app as ordering
from examples.approval.ordering.models import PurchaseOrder
from toolkit.testing import SagaWorld, sample

PURCHASE = sample(
    PurchaseRequested, purchase_id="purchase-1", department="THRIFTY"
)  # it has 1000000, the price is 450000


@pytest.fixture
def world(saga_world: type[SagaWorld]) -> SagaWorld:
    return saga_world(finance, approvals, ordering)


def test_an_approved_purchase_is_ordered(world):
    world.given(PURCHASE)
    world.when(Approved(purchase_id="purchase-1", note="needed"))

    world.then.completed().emitted(PurchaseOrdered).rows(PurchaseOrder, {"item": "LATHE", "price": 450000})


def test_a_declined_purchase_releases_its_budget(world):
    world.given(PURCHASE)
    world.when(Declined(purchase_id="purchase-1", why="too dear"))

    world.then.failed(reason="too dear").compensated("reserve_budget")
    world.then.rows(Department, {"available": 1000000}, name="THRIFTY")


def test_an_answer_may_come_before_its_question(world):
    world.when(Approved(purchase_id="purchase-1"), PURCHASE)

    world.then.completed()


def test_a_purchase_waits_three_days_for_an_answer(world):
    world.given(PURCHASE)

    world.when.skip(timedelta(days=2, hours=23))
    world.then.states(decide_purchase="gathering")
    world.when.skip(timedelta(hours=2))

    world.then.failed(reason="its deadline passed; waited for Approved or Declined").compensated("reserve_budget")
    world.when(Approved(purchase_id="purchase-1"))
    world.then.failed().rows(PurchaseOrder)


def test_the_question_is_reminded_of_each_day(world):
    world.given(PURCHASE)
    world.when.skip(timedelta(days=2, hours=12))

    assert [each.to_state for each in world.then.entries].count("reminded") == 2


def test_the_first_of_two_answers_counts(world):
    world.given(PURCHASE)
    world.when(Declined(purchase_id="purchase-1", why="too dear"), Approved(purchase_id="purchase-1"))

    world.then.failed(reason="too dear").rows(PurchaseOrder)


def test_a_spent_budget_asks_no_approver(world):
    world.given(Department(name="THRIFTY", available=449999))
    world.when(PURCHASE)

    world.then.failed(reason="THRIFTY has 449999 left").emitted(BudgetRefused).states(decide_purchase=None)
