"""The clearing house's sandbox: one key is one settlement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlmodel import select

from examples.transfer.clearing.clearing_house import (
    ClearingHouse,
    ClearingHouseUnavailableError,
    Settlement,
    SettlementState,
    open_clearing_house,
)
from toolkit import Settings
from toolkit.client.account_checks import reading
from toolkit.errors import UnreachableError

KEY = "transfer:transfer-1:clear_transfer"


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CLEARING_HOUSE_URL", database_url)
    monkeypatch.setenv("CLEARING_HOUSE_SLOWNESS", "3600")
    return Settings(data_dir=tmp_path)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[ClearingHouse]:
    async with open_clearing_house(settings) as house:
        yield house


async def facts(url: str) -> dict[str, tuple[str, int, int]]:
    async with reading(url) as session:
        return {each.key: (each.state, each.amount, each.attempts) for each in await session.exec(select(Settlement))}


async def test_ten_concurrent_calls_settle_once(house, database_url):
    results = await asyncio.gather(*(house.settle(KEY, 6000, scheme="instant") for _ in range(10)))

    assert {(each.state, each.amount) for each in results} == {(SettlementState.SETTLED, 6000)}
    assert await facts(database_url) == {KEY: ("settled", 6000, 10)}


async def test_an_unknown_scheme_is_turned_down_for_good(house):
    first = await house.settle(KEY, 6000, scheme="pigeon")
    second = await house.settle(KEY, 6000, scheme="instant")

    assert (first.state, first.reason) == ("turned down", "the clearing house has no scheme 'pigeon'")
    assert (second.state, second.amount) == ("turned down", 0)


async def test_a_flaky_scheme_fails_twice_and_then_settles(house):
    for _ in range(2):
        with pytest.raises(ClearingHouseUnavailableError):
            await house.settle(KEY, 6000, scheme="flaky")

    assert (await house.settle(KEY, 6000, scheme="flaky")).state == SettlementState.SETTLED


async def test_a_slow_scheme_is_settled_before_answering(house, database_url):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await house.settle(KEY, 6000, scheme="slow")

    assert await facts(database_url) == {KEY: ("settled", 6000, 1)}


async def test_a_recall_works_while_settlements_fail(house, database_url):
    with pytest.raises(ClearingHouseUnavailableError):
        await house.settle(KEY, 6000, scheme="down")

    await house.recall(KEY)
    await house.recall(KEY)

    assert (await house.settle(KEY, 6000, scheme="instant")).reason == "the transfer was recalled"
    assert await facts(database_url) == {KEY: ("recalled", 0, 2)}


async def test_a_settlement_racing_its_recall_moves_nothing(settings, database_url):
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(open_clearing_house(settings)) for _ in range(2)]
        calls = []
        for number in range(20):
            calls.append(replicas[number % 2].settle(f"transfer-{number}", 6000, scheme="instant"))
            calls.append(replicas[1 - number % 2].recall(f"transfer-{number}"))

        await asyncio.gather(*calls)

    assert {each[:2] for each in (await facts(database_url)).values()} == {("recalled", 0)}


async def test_an_unreachable_ledger_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("CLEARING_HOUSE_URL", "postgresql://127.0.0.1:1/ledger")

    with pytest.raises(UnreachableError, match="CLEARING_HOUSE_URL"):
        async with open_clearing_house(Settings(data_dir=tmp_path)):
            pass
