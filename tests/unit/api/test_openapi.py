"""The API matches its OpenAPI document, for requests that the document allows and for others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, settings
from schemathesis import GenerationMode

from services.payment.app import app as payment_service
from tests.cli.conftest import ORDERS, TOKEN, served, write_log
from tests.orders import FAILED, PENDING, entry
from tests.unit.api.payment_api import write_backlog
from toolkit.api import access
from toolkit.api.context import ApiContext
from toolkit.api.endpoints import Endpoint
from toolkit.api.openapi import openapi
from toolkit.api.routes import endpoints_of
from toolkit.clock import SystemClock
from toolkit.declaration.contract import Contract
from toolkit.persistence.database import Database

SHOWING = {"Authorization": f"Bearer {TOKEN}"}
WHY = {"reason": "the gateway is back"}
EVENT = {"order_id": "order-2", "amount": 4900, "customer_email": "ada@shop.example"}


@pytest.fixture(scope="module")
def payment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The payment service's API, served over HTTP, with rows in each table."""
    url = f"sqlite:///{tmp_path_factory.mktemp('openapi')}/payment.db"
    entries = [replace(each, emitted_body=json.dumps(EVENT)) for each in ORDERS if each.service == "payment"]
    gone = entry("order-8", "payment", "charge_card", "completed", PENDING, "InventoryReserved")
    odd = entry("order-9", "payment", "process_payment", "ended", FAILED, "SagaEnded", position=None)
    asyncio.run(write_log(url, [*entries, gone, replace(odd, error="still completed in a saga that ended failed")]))
    asyncio.run(write_backlog(url))
    with pytest.MonkeyPatch.context() as patch, served("payment", url) as address:
        patch.setattr(access, "PAUSE", 0)  # hundreds of wrong tokens are sent, one after the other
        yield address


def declared() -> list[Endpoint]:
    async def readiness() -> dict[str, bool]:
        return {}

    context = ApiContext(
        service=payment_service, contract=Contract.of(payment_service), database=Database("sqlite:///:memory:"),
        readiness=readiness, queue="saga.payment", clock=SystemClock(),
    )  # fmt: skip
    return endpoints_of(context)


schema = schemathesis.openapi.from_dict(openapi("payment", declared()))
schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


PATHS = {
    "/sagas/{id:path}": "/sagas/order-2",
    "/dead-letters/{id}": "/dead-letters/dead-letter-order-1",
    "/sagas/{id:path}/replay": "/sagas/order-2/replay",
    "/sagas/{id:path}/nudge": "/sagas/order-2/nudge",
    "/sagas/{id:path}/abort": "/sagas/order-2/abort",
}
BODIES: dict[str, dict[str, Any]] = {
    "/dead-letters/redrive": {"all": True, "dry_run": True},
    "/dead-letters/drop": {"all": True, "dry_run": True},
    "/prune": {"older_than": "30000d"},
}


# The payment waits for no answer: tests/conformance has the response to one.
_ANSWERING = [each for each in declared() if each.answer and "/answers/" not in each.path]


@pytest.mark.parametrize("endpoint", _ANSWERING, ids=lambda each: each.path)
def test_a_response_has_exactly_its_models_fields(payment: str, endpoint: Endpoint) -> None:
    body = json.dumps(WHY | BODIES.get(endpoint.path, {})) if endpoint.body else None

    response = httpx.request(
        endpoint.method, payment + PATHS.get(endpoint.path, endpoint.path), headers=SHOWING, content=body
    )

    assert response.status_code == 200
    assert endpoint.answer
    shown = endpoint.answer.model_validate_json(response.content).model_dump(mode="json", exclude_unset=True)
    assert shape(shown) == shape(response.json())


def shape(value: Any) -> Any:
    """Return the names of a response's fields, at all depths."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else None


@pytest.mark.parametrize("span", ["-5e-324", "-1", "nan", "inf", "315360000.0000001", "-1min"])
def test_a_duration_just_out_of_bounds_is_rejected(payment: str, span: str) -> None:
    answer = httpx.get(f"{payment}/sagas", params={"older_than": span})

    assert (answer.status_code, answer.json()["error"][:11]) == (400, "older_than=")


# The last one, since it redrives and drops dead letters.
@schema.parametrize()
@settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_each_response_matches_the_openapi_document(payment: str, case: Any) -> None:
    assume({*(case.query or {})} <= {each.name for each in case.operation.query})  # the API ignores undeclared ones
    answer = case.call_and_validate(base_url=payment, headers=SHOWING, timeout=10)

    assert answer.status_code < 500


def test_the_document_lists_the_guarded_paths(payment: str) -> None:
    paths = httpx.get(f"{payment}/openapi.json").json()["paths"]

    guarded = {path for path, verbs in paths.items() for shown in verbs.values() if "security" in shown}

    assert guarded == {
        "/sagas/{id}/replay", "/sagas/{id}/nudge", "/sagas/{id}/abort", "/dead-letters/redrive", "/dead-letters/drop",
        "/dead-letters/{id}", "/prune", "/audit", "/sagas/{id}/answers/{event}",
    }  # fmt: skip
    assert guarded >= {path for path, verbs in paths.items() if "post" in verbs}
