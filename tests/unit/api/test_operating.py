"""The operator's part of the API: each write, and each message, needs the token."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from tests.unit.api.payment_api import SHOWING, TOKEN, WHY, audited, nothing_is_ready, routes_of
from toolkit.configuration.tokens import TokenDigest
from toolkit.persistence.database import Database

WRITES = [
    "/dead-letters/redrive",
    "/dead-letters/drop",
    "/sagas/order-2/replay",
    "/sagas/order-2/nudge",
    "/sagas/order-2/abort",
    "/prune",
]


@pytest.mark.parametrize("path", WRITES)
async def test_a_service_without_token_accepts_no_writes(client, database, path):
    response = await client(None, headers=SHOWING).post(path, json=WHY)

    assert response.status_code == 403
    assert "start payment with SAGA_API_TOKEN" in response.json()["error"]
    assert await audited(database) == []


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}!", "Bearer \xfc"]
)
@pytest.mark.parametrize("path", WRITES)
async def test_a_wrong_token_writes_nothing(client, database, path, header):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}

    response = await client().post(path, json=WHY | {"all": True}, headers=headers)

    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert await audited(database) == []


async def test_the_audit_needs_the_token_and_has_pages(client, operator):
    for verb in ("nudge", "abort"):
        await operator.post(f"/sagas/order-2/{verb}", json=WHY)

    refused = await client().get("/audit")
    first = (await operator.get("/audit", params={"limit": 1})).json()
    last = (await operator.get("/audit", params={"limit": 1, "cursor": first["next"]})).json()

    assert refused.status_code == 401
    assert [(each["verb"], each["actor"], each["reason"]) for each in first["audit"] + last["audit"]] == [
        ("abort", "ada@desk", "the gateway is back"), ("nudge", "ada@desk", "the gateway is back"),
    ]  # fmt: skip


async def test_old_sagas_are_pruned(operator):
    response = await operator.post("/prune", json=WHY | {"older_than": "1d"})

    assert response.json() == {"service": "payment", "sagas": 1, "dead_letters": 0, "audit": 0, "is_all": False}


@pytest.mark.parametrize(
    ("path", "body", "fault"),
    [
        ("/dead-letters/redrive", {"all": True}, "reason: Field required"),
        ("/dead-letters/redrive", {"all": True, "reason": "  "}, "reason: give a reason"),
        ("/dead-letters/redrive", {"all": True, "reason": ""}, "reason: give a reason"),
        (
            "/dead-letters/redrive",
            {"all": True, "reason": "two\nlines"},
            "reason: write one line, without control characters",
        ),
        ("/dead-letters/redrive", WHY, "select dead letters by ids, reason_is, step, saga, before, or all"),
        ("/dead-letters/drop", WHY | {"id": "letter-1"}, "id: Extra inputs are not permitted"),
        ("/dead-letters/drop", WHY | {"ids": ["\0"]}, "ids.0: "),
        ("/prune", WHY | {"older_than": "1h"}, "older_than: Input should be greater than or equal to"),
        ("/prune", WHY, "older_than: Field required"),
        ("/prune", [], "the body: "),
    ],
)
async def test_an_invalid_request_body_is_rejected(operator, database, path, body, fault):
    response = await operator.post(path, json=body)

    assert response.status_code == 400
    assert fault in response.json()["error"]
    assert await audited(database) == []


async def test_overdue_steps_need_no_token(client):
    response = await client().get("/overdue")

    assert response.json() == {"service": "payment", "overdue": []}


async def test_a_database_outage_answers_operators_with_503(tmp_path: Path):
    database = Database("postgresql://postgres@127.0.0.1:1/payment")
    routes = routes_of(database, nothing_is_ready, TokenDigest.of(TOKEN))
    transport = httpx.ASGITransport(Starlette(routes=routes))

    async with httpx.AsyncClient(transport=transport, base_url="http://payment", headers=SHOWING) as operator:
        response = await operator.post("/dead-letters/redrive", json=WHY | {"all": True})

    assert response.status_code == 503
    await database.close()


async def test_the_outbox_is_listed_page_by_page(client, operator):
    for _ in range(3):
        await operator.post("/sagas/order-2/nudge", json=WHY)

    first = (await client().get("/outbox", params={"limit": 2})).json()
    last = (await client().get("/outbox", params={"limit": 2, "cursor": first["next"]})).json()

    assert (first["total"], len(first["outbox"]), len(last["outbox"]), last["next"]) == (3, 2, 1, None)
    assert {each["event_type"] for each in first["outbox"]} == {"PaymentProcessed"}
    assert tuple(first["outbox"][0]) == (
        "id", "event_id", "event_type", "saga_type", "saga_id", "occurred_at", "due_at", "tries", "destination",
        "attempt",
    )  # fmt: skip
    assert first["oldest_at"]
