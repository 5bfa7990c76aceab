"""Dead letters over the API: lists, groups, redrive and drop; nothing sensitive is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.api.payment_api import WHY, audited, dead_letter_of
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import dead_letters
from toolkit.persistence.database import Database
from toolkit.protocol.dead_letter_rows import DeadLetterSummary
from toolkit.protocol.rows import field_names


async def test_a_list_needs_no_token(client):
    content = (await client().get("/dead-letters")).json()

    assert (content["service"], content["total"]) == ("payment", 2)
    assert all(tuple(each) == field_names(DeadLetterSummary) for each in content["dead_letters"])
    assert "ada@shop.example" not in str(content)


async def test_a_list_can_be_narrowed(client):
    async def listed(**query: Any) -> list[str]:
        content = (await client().get("/dead-letters", params=query)).json()
        return [each["saga_id"] for each in content["dead_letters"]]

    assert await listed(saga="order-2") == ["order-2"]
    assert await listed(id=["dead-letter-order-1", "dead-letter-404"]) == ["order-1"]
    assert await listed(reason="schema") == []
    assert await listed(step="process_payment", limit=1) == ["order-2"]
    assert await listed(before=(datetime.now(UTC) - timedelta(hours=1)).isoformat()) == []


@pytest.mark.parametrize(
    "query",
    ["before=yesterday", "before=2026-05-04T12:00:00", "before=0001-01-01T00:00:00%2B23:00", "limit=0", "saga=%00"],
)
async def test_an_invalid_filter_is_rejected(client, query):
    response = await client().get(f"/dead-letters?{query}")

    assert response.status_code == 400
    assert "is not allowed" in response.json()["error"]


async def test_a_dead_letters_message_needs_the_token(client, operator):
    refused = await client().get("/dead-letters/dead-letter-order-2")
    shown = await operator.get("/dead-letters/dead-letter-order-2")

    assert refused.status_code == 401
    assert shown.json()["dead_letter"]["body"] == '{"secret":"***"}'
    assert shown.json()["dead_letter"]["traceback"] == "line 7"


async def test_a_missing_dead_letter_is_not_found(operator):
    response = await operator.get("/dead-letters/dead-letter-404")

    assert (response.status_code, response.json()["error"]) == (
        404,
        "payment has no dead letter 'dead-letter-404'",
    )


async def test_dead_letters_of_open_sagas_are_redriven(operator, database):
    response = await operator.post("/dead-letters/redrive", json=WHY | {"all": True})

    rows = response.json()["rows"]
    assert [(row["saga_id"], row["outcome"]) for row in rows] == [("order-1", "refused"), ("order-2", "redriven")]
    assert rows[0]["why"].startswith("saga order-1 has ended (Completed)")
    assert response.json()["after"] is None
    assert await audited(database) == [("ada@desk", "redrive", "the gateway is back")]


async def test_a_dry_run_writes_nothing(operator, database):
    response = await operator.post("/dead-letters/drop", json=WHY | {"all": True, "dry_run": True})

    assert [row["outcome"] for row in response.json()["rows"]] == ["would be dropped"] * 2
    assert await audited(database) == []


async def test_one_dead_letter_is_dropped(operator, database):
    response = await operator.post("/dead-letters/drop", json=WHY | {"ids": ["dead-letter-order-1"]})

    assert [row["outcome"] for row in response.json()["rows"]] == ["dropped"]
    assert (await operator.get("/dead-letters")).json()["total"] == 1


@pytest.fixture
async def personal_dead_letter(database: Database) -> None:
    event = {
        "order_id": "order-7", "reservation_id": "r-1", "total_amount": 4900, "payment_method": "card_of_ada",
        "customer_email": "ada@shop.example",
        "shipping_address": {
            "name": "Ada Lovelace", "street": "12 St James's Square", "city": "London", "postal_code": "SW1Y 4JH",
            "country": "GB",
        },
    }  # fmt: skip
    message = WireMessage(
        json.dumps(event).encode(), "inventory.InventoryReserved", message_id="event-7", correlation_id="order-7",
        type="InventoryReserved", headers={"saga-type": "order", "x-shop-session": "secret-cookie"},
    )  # fmt: skip
    error = "GatewayError: no card 'card_of_ada' of ada@shop.example"
    personal = replace(dead_letter_of("order-7"), message=message, error=error, traceback=f"line 7\n{error}")
    async with database.transaction() as session:
        await dead_letters.add(await session.connection(), [personal])


SECRETS = ("ada@shop.example", "card_of_ada", "Lovelace", "secret-cookie")


async def test_a_dead_letter_shows_nothing_sensitive(operator, personal_dead_letter):
    shown = (await operator.get("/dead-letters/dead-letter-order-7")).json()["dead_letter"]

    assert not [secret for secret in SECRETS if secret in str(shown)]
    assert json.loads(shown["body"])["total_amount"] == 4900
    assert shown["error"] == "GatewayError: no card '***' of ***"
    assert shown["headers"] == {"saga-type": "order", "x-shop-session": "***"}


@pytest.mark.parametrize("path", ["/dead-letters", "/sagas/order-7"])
async def test_lists_show_nothing_sensitive(client, personal_dead_letter, path):
    content = (await client().get(path)).json()

    assert "GatewayError: no card '***' of ***" in {each["error"] for each in content["dead_letters"]}
    assert not [secret for secret in SECRETS if secret in str(content)]


async def test_undeclared_events_are_not_shown(operator, database):
    unknown = WireMessage(b'{"card": "4111"}', "bank.CardSwallowed", correlation_id="order-8")
    foreign = replace(dead_letter_of("order-8"), message=unknown, error="no card 4111", traceback="no card 4111")
    async with database.transaction() as session:
        await dead_letters.add(await session.connection(), [foreign])

    listed = (await operator.get("/dead-letters", params={"saga": "order-8"})).json()
    shown = (await operator.get("/dead-letters/dead-letter-order-8")).json()

    assert "4111" not in f"{listed}{shown}"
    assert shown["dead_letter"]["body"] == "(not shown: unknown event)"


async def test_dead_letters_are_grouped_largest_first(client, personal_dead_letter):
    content = (await client().get("/dead-letters/groups")).json()

    (group,) = content["groups"]
    assert (group["reason"], group["step"], group["count"]) == ("retries spent", "process_payment", 3)
    assert group["first_at"] <= group["last_at"]


async def test_a_group_shows_the_newest_error_redacted(client, operator, personal_dead_letter):
    newest = (await operator.get("/dead-letters")).json()["dead_letters"][0]

    (group,) = (await client().get("/dead-letters/groups")).json()["groups"]

    assert (group["error"], group["saga_id"]) == (newest["error"], newest["saga_id"])
    assert len(group["error"]) <= 200
    assert not [secret for secret in SECRETS if secret in str(group)]
