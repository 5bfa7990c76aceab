"""A service's contract is the same whether the running service tells it, or its declarations do; as AsyncAPI, too."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from services.demo import SERVICES
from toolkit.cli.service_locations import opened
from toolkit.declaration.contract import Contract
from toolkit.errors import UnreachableError


async def contract_of(name: str, url: str) -> Contract:
    async with opened([f"{name}={url}"]) as known:
        return await known[0].contract()


def test_running_services_contract_equals_its_declarations(data_dir, logs, serve):
    url = serve("payment", logs["payment"])

    asked = asyncio.run(contract_of("payment", url))
    found = asyncio.run(contract_of("payment", logs["payment"]))

    assert asked == found
    assert httpx.get(f"{url}/contract").json()["service"] == "payment"


def test_database_without_declarations_has_no_contract(data_dir, logs, tmp_path, monkeypatch):
    monkeypatch.setenv("SAGA_PACKAGE", "no_such_package")

    with pytest.raises(UnreachableError, match=r"declarations of payment are not to be found.*SAGA_PACKAGE"):
        asyncio.run(contract_of("payment", logs["payment"]))


def test_another_services_contract_is_not_believed(data_dir, logs, serve):
    url = serve("payment", logs["payment"])

    with pytest.raises(UnreachableError, match="is not shipping: payment answers there"):
        asyncio.run(contract_of("shipping", url))


def test_asyncapi_is_made_from_declarations(saga):
    result = saga("asyncapi", "payment")

    document = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (document["asyncapi"], document["info"]["title"]) == ("3.1.0", "payment")
    assert document["channels"]["queue"]["address"] == "saga.payment"
    assert result.stdout.startswith('{\n  "asyncapi": "3.1.0",\n')


def test_a_running_service_tells_the_same_document(saga, logs, serve):
    url = serve("payment", logs["payment"])

    asked = saga("asyncapi", "payment", f"--service=payment={url}")

    assert asked.exit_code == 0
    assert asked.stdout == saga("asyncapi", "payment").stdout
    assert json.loads(asked.stdout) == httpx.get(f"{url}/asyncapi.json").json()


def test_exchange_setting_names_channels_and_queue(saga, monkeypatch):
    monkeypatch.setenv("SAGA_EXCHANGE", "shop")

    channels = json.loads(saga("asyncapi", "payment").stdout)["channels"]

    assert channels["queue"]["address"] == "shop.payment"
    assert channels["payment.PaymentFailed"]["bindings"]["amqp"]["exchange"]["name"] == "shop"


def test_unknown_service_and_unreachable_service_end_differently(saga, logs):
    unknown = saga("asyncapi", "warehouse")
    unlisted = saga("asyncapi", "warehouse", "--service=payment=http://127.0.0.1:1")
    away = saga("asyncapi", "payment", "--service=payment=http://127.0.0.1:1")

    assert (unknown.exit_code, unlisted.exit_code, away.exit_code) == (2, 2, 3)
    assert "there is no service 'warehouse'; there are: inventory, notification, payment, shipping" in unknown.stderr
    assert away.stderr.startswith("error: http://127.0.0.1:1 does not answer")


def test_a_contract_is_what_the_service_answers(saga, logs, serve):
    url = serve("payment", logs["payment"])

    declared, asked = saga("contract", "payment"), saga("contract", "payment", f"--service=payment={url}")

    assert (declared.exit_code, declared.stderr, asked.exit_code) == (0, "", 0)
    assert declared.stdout == asked.stdout
    assert Contract.model_validate_json(declared.stdout) == Contract.of(SERVICES[1])


def test_a_contract_of_an_unknown_service_is_wrong_use(saga, data_dir):
    unknown, away = saga("contract", "warehouse"), saga("contract", "payment", "--service=payment=http://127.0.0.1:1")

    assert (unknown.exit_code, away.exit_code) == (2, 3)
    assert unknown.stdout == away.stdout == ""
