"""An outside system does what its script says, and keeps a ledger of the effects under each key."""

from __future__ import annotations

import asyncio

import pytest

from toolkit.errors import WorldError
from toolkit.testing import NoAnswerError, Outcome, OutsideSystem

KEY = "order:o-1:charge_card"


class Bank(OutsideSystem):
    async def charge(self, key: str, amount: int) -> int | str:
        return await self.perform("charge", key, amount, refusal="declined")

    async def void(self, key: str) -> None:
        await self.undo("void", key)


@pytest.fixture
def bank() -> Bank:
    return Bank()


async def test_a_repeated_call_has_one_effect(bank: Bank) -> None:
    assert await bank.charge(KEY, 100) == 100
    assert await bank.charge(KEY, 999) == 100, "the key's first answer is repeated"

    bank.assert_one_effect_per_key()
    assert bank.standing == {KEY: 100}


async def test_a_script_is_followed_call_by_call(bank: Bank) -> None:
    bank.plan("charge", Outcome.FAILS, Outcome.FAILS_AFTER)

    with pytest.raises(NoAnswerError, match=r"charge of order:o-1:charge_card fails before its effect: call again"):
        await bank.charge(KEY, 100)
    assert bank.standing == {}
    with pytest.raises(NoAnswerError):
        await bank.charge(KEY, 100)
    assert bank.standing == {KEY: 100}
    assert await bank.charge(KEY, 100) == 100
    assert bank.unused == []


async def test_a_refusal_stays_one_under_its_key(bank: Bank) -> None:
    bank.plan("charge", Outcome.REFUSES)

    assert [await bank.charge(KEY, 100), await bank.charge(KEY, 100)] == ["declined", "declined"]
    assert await bank.charge("order:o-2:charge_card", 100) == 100


async def test_a_silent_call_has_had_its_effect(bank: Bank) -> None:
    bank.plan("charge", Outcome.NO_ANSWER, Outcome.NO_ANSWER_AFTER)

    for standing in ({}, {KEY: 100}):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await bank.charge(KEY, 100)
        assert bank.standing == standing


async def test_an_undone_key_has_no_effect_any_more(bank: Bank) -> None:
    await bank.void(KEY)

    assert await bank.charge(KEY, 100) == "declined"
    bank.assert_nothing_stands()


async def test_a_system_that_is_down_fails_every_call(bank: Bank) -> None:
    bank.goes_down()
    with pytest.raises(NoAnswerError):
        await bank.charge(KEY, 100)

    bank.comes_up()
    assert await bank.charge(KEY, 100) == 100


async def test_a_plan_may_be_for_one_step(bank: Bank) -> None:
    bank.plan("charge", Outcome.REFUSES, step="charge_card")

    assert await bank.charge("order:o-1:charge_deposit", 100) == 100
    assert bank.unused == ["charge of charge_card: refuses"]
    assert await bank.charge(KEY, 100) == "declined"


async def test_a_numbered_call_is_scripted_over_all_operations(bank: Bank) -> None:
    bank.at_call(2, Outcome.FAILS)

    await bank.charge(KEY, 100)
    with pytest.raises(NoAnswerError):
        await bank.void(KEY)


async def test_two_effects_under_a_key_are_detected() -> None:
    bank = Bank(knows_keys=False)
    await bank.charge(KEY, 100)
    await bank.charge(KEY, 100)

    with pytest.raises(AssertionError, match=rf"{KEY} has more than one effect: charge succeeds, charge succeeds"):
        bank.assert_one_effect_per_key()


async def test_an_effect_that_stands_is_detected(bank: Bank) -> None:
    await bank.charge(KEY, 100)

    bank.assert_nothing_stands([f"{KEY}-of-another"])
    with pytest.raises(AssertionError, match=f"{KEY} still stands: charge succeeds"):
        bank.assert_nothing_stands()


async def test_wrong_use_of_a_system_names_the_cure(bank: Bank) -> None:
    with pytest.raises(WorldError, match=r"Bank has no operation refund: plan one of charge, void"):
        bank.plan("refund", Outcome.FAILS)
    with pytest.raises(WorldError, match=r"charge was called without a key: pass the step's IdempotencyKey"):
        await bank.charge("", 100)
    bank.plan("charge", Outcome.REFUSES)
    with pytest.raises(WorldError, match=r"charge refuses order:.*has no refusal: pass perform"):
        await bank.perform("charge", KEY, 100)
