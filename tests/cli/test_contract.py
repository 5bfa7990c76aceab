"""A service's contract is the same whether the running service tells it, or its declarations do."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from toolkit.cli.locating import opened
from toolkit.contract import Contract
from toolkit.errors import UnreachableError


async def contract_of(name: str, url: str) -> Contract:
    async with opened([f"{name}={url}"]) as known:
        return await known[0].contract()


def test_the_running_service_and_its_declarations_tell_the_same(data_dir, logs, serve):
    url = serve("payment", logs["payment"])

    asked = asyncio.run(contract_of("payment", url))
    found = asyncio.run(contract_of("payment", logs["payment"]))

    assert asked == found
    assert httpx.get(f"{url}/contract").json()["service"] == "payment"


def test_a_database_whose_declarations_are_not_here_tells_no_contract(data_dir, logs, tmp_path, monkeypatch):
    monkeypatch.setenv("SAGA_PACKAGE", "no_such_package")

    with pytest.raises(UnreachableError, match=r"declarations of payment are not to be found.*SAGA_PACKAGE"):
        asyncio.run(contract_of("payment", logs["payment"]))


def test_another_services_contract_is_not_believed(data_dir, logs, serve):
    url = serve("payment", logs["payment"])

    with pytest.raises(UnreachableError, match="is not shipping: payment answers there"):
        asyncio.run(contract_of("shipping", url))
