"""Whether a topic exchange's binding takes a routing key."""

from __future__ import annotations

import pytest

from toolkit.doctor.checks.routing import matches


@pytest.mark.parametrize(
    "pattern", ["payment.Paid", "payment.*", "*.Paid", "#", "payment.#", "#.Paid", "payment.Paid.#"]
)
def test_a_binding_takes_keys_of_its_pattern(pattern: str):
    assert matches(pattern, "payment.Paid")


@pytest.mark.parametrize("pattern", ["payment.Refused", "*", "payment", "payment.Paid.*", "shipping.#", "paymentXPaid"])
def test_a_binding_takes_no_other_key(pattern: str):
    assert not matches(pattern, "payment.Paid")
