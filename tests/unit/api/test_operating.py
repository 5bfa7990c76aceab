"""The operator's part of the API: nothing is written and no message shown without the token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette

from services.payment.app import app as payment_service
from tests.orders import fulfilled_order, paid_order
from toolkit.api import Access, ApiContext, api_routes
from toolkit.clock import SystemClock
from toolkit.declaration.contract import Contract
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import audit_log, dead_letter_queries, dead_letters, outbox, saga_log, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letter_queries import SHOWN
from toolkit.persistence.dead_letters import DeadLetter

TOKEN = "open-sesame-now"
SHOWING = {"Authorization": f"Bearer {TOKEN}"}
WHY = {"reason": "the gateway is back", "actor": "ada@desk"}
WRITES = [
    "/dead-letters/redrive",
    "/dead-letters/drop",
    "/sagas/order-2/replay",
    "/sagas/order-2/nudge",
    "/sagas/order-2/abort",
    "/prune",
]

Client = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/payment.db")
    await database.create_tables()
    async with database.transaction() as session:
        connection = await session.connection()
        entries = [*fulfilled_order("order-1"), *paid_order("order-2")]
        await saga_log.append(
            connection, [replace(entry, emitted_body="{}") for entry in entries if entry.service == "payment"]
        )
        await dead_letters.add(connection, [letter("order-1"), letter("order-2")])
    yield database
    await database.close()


@pytest.fixture
def client(database: Database) -> Client:
    def build(token: str | None = TOKEN, **facts: Any) -> httpx.AsyncClient:
        secret = SecretStr(token) if token else None
        routes = routes_of(database, nothing_is_ready, secret)
        transport = httpx.ASGITransport(Starlette(routes=routes))
        return httpx.AsyncClient(transport=transport, base_url="http://payment", **facts)

    return build


@pytest.fixture
def operator(client: Client) -> httpx.AsyncClient:
    return client(headers=SHOWING)


async def nothing_is_ready() -> dict[str, bool]:
    return {}


def routes_of(database: Database, readiness: Any, token: SecretStr | None) -> list[Any]:
    site = ApiContext(
        service=payment_service, contract=Contract.of(payment_service), database=database, readiness=readiness,
        queue="saga.payment", clock=SystemClock(),
    )  # fmt: skip
    return api_routes(site, Access("payment", token=token))


def letter(saga_id: str) -> DeadLetter:
    message = WireMessage(
        b'{"secret": "ada@shop.example"}',
        "shipping.ShipmentFailed",
        message_id=f"message of {saga_id}",
        correlation_id=saga_id,
        type="ShipmentFailed",
        headers={"saga-type": "order", "attempt": 5},
    )
    return DeadLetter(
        id=f"letter-{saga_id}", service="payment", reason="retries spent", error="gateway away", message=message,
        step="process_payment", at=datetime.now(UTC), traceback="line 7",
    )  # fmt: skip


async def audited(database: Database) -> list[tuple[str, str, str]]:
    async with database.reading() as connection:
        return [(row["actor"], row["verb"], row["reason"]) for row in await audit_log.listed(connection)]


@pytest.mark.parametrize("path", WRITES)
async def test_without_a_token_of_the_services_own_nothing_can_be_written_and_it_says_how_to(client, database, path):
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


async def test_the_audit_is_read_page_by_page_the_newest_first_and_with_the_token_alone(client, operator):
    for verb in ("nudge", "abort"):
        await operator.post(f"/sagas/order-2/{verb}", json=WHY)

    refused = await client().get("/audit")
    first = (await operator.get("/audit", params={"limit": 1})).json()
    last = (await operator.get("/audit", params={"limit": 1, "cursor": first["next"]})).json()

    assert refused.status_code == 401
    assert [(each["verb"], each["actor"], each["reason"]) for each in first["audit"] + last["audit"]] == [
        ("abort", "ada@desk", "the gateway is back"), ("nudge", "ada@desk", "the gateway is back"),
    ]  # fmt: skip


async def test_a_list_needs_no_token_and_shows_no_message(client):
    content = (await client().get("/dead-letters")).json()

    assert (content["service"], content["total"]) == ("payment", 2)
    assert all(tuple(each) == SHOWN for each in content["dead_letters"])
    assert "ada@shop.example" not in str(content)


async def test_a_list_can_be_narrowed(client):
    async def listed(**query: Any) -> list[str]:
        content = (await client().get("/dead-letters", params=query)).json()
        return [each["saga_id"] for each in content["dead_letters"]]

    assert await listed(saga="order-2") == ["order-2"]
    assert await listed(id=["letter-order-1", "letter-404"]) == ["order-1"]
    assert await listed(reason="schema") == []
    assert await listed(step="process_payment", limit=1) == ["order-2"]
    assert await listed(before=(datetime.now(UTC) - timedelta(hours=1)).isoformat()) == []


@pytest.mark.parametrize(
    "query",
    ["before=yesterday", "before=2026-05-04T12:00:00", "before=0001-01-01T00:00:00%2B23:00", "limit=0", "saga=%00"],
)
async def test_a_question_that_is_not_allowed_is_told_what_is(client, query):
    response = await client().get(f"/dead-letters?{query}")

    assert response.status_code == 400
    assert "is not allowed" in response.json()["error"]


async def test_a_whole_letter_is_people_s_data_and_needs_the_token(client, operator):
    refused = await client().get("/dead-letters/letter-order-2")
    shown = await operator.get("/dead-letters/letter-order-2")

    assert refused.status_code == 401
    assert shown.json()["dead_letter"]["body"] == '{"secret":"***"}'
    assert shown.json()["dead_letter"]["traceback"] == "line 7"


async def test_a_letter_that_is_not_there_is_not_found(operator):
    response = await operator.get("/dead-letters/letter-404")

    assert (response.status_code, response.json()["error"]) == (404, "payment has no dead letter 'letter-404'")


async def test_letters_are_redriven_but_for_those_of_ended_sagas(operator, database):
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


async def test_letters_are_dropped_one_by_one(operator, database):
    response = await operator.post("/dead-letters/drop", json=WHY | {"ids": ["letter-order-1"]})

    assert [row["outcome"] for row in response.json()["rows"]] == ["dropped"]
    assert (await operator.get("/dead-letters")).json()["total"] == 1


async def test_a_replay_says_what_was_emitted(operator):
    response = await operator.post("/sagas/order-2/replay", json=WHY)

    (row,) = response.json()["rows"]
    assert (row["step"], row["event_type"], row["outcome"]) == ("process_payment", "PaymentProcessed", "replayed")


@pytest.mark.parametrize("saga_id", ["order-404", "%00", "a b"])
async def test_a_saga_that_is_not_known_can_not_be_replayed(operator, saga_id):
    response = await operator.post(f"/sagas/{saga_id}/replay", json=WHY)

    assert response.status_code == 404


async def test_old_sagas_are_pruned(operator):
    response = await operator.post("/prune", json=WHY | {"older_than": "1d"})

    assert response.json() == {"service": "payment", "sagas": 1, "dead_letters": 0, "audit": 0, "is_all": False}


@pytest.mark.parametrize(
    ("path", "order", "fault"),
    [
        ("/dead-letters/redrive", {"all": True}, "reason: Field required"),
        ("/dead-letters/redrive", {"all": True, "reason": "  "}, "reason: say why"),
        ("/dead-letters/redrive", {"all": True, "reason": ""}, "reason: say why"),
        (
            "/dead-letters/redrive",
            {"all": True, "reason": "two\nlines"},
            "reason: write one line, without control characters",
        ),
        ("/dead-letters/redrive", WHY, "say which letters: ids, reason_is, step, saga, before, or all"),
        ("/dead-letters/drop", WHY | {"id": "letter-1"}, "id: Extra inputs are not permitted"),
        ("/dead-letters/drop", WHY | {"ids": ["\0"]}, "ids.0: "),
        ("/prune", WHY | {"older_than": "1h"}, "older_than: Input should be greater than or equal to"),
        ("/prune", WHY, "older_than: Field required"),
        ("/prune", [], "the body: "),
    ],
)
async def test_an_order_that_is_not_allowed_is_told_what_is(operator, database, path, order, fault):
    response = await operator.post(path, json=order)

    assert response.status_code == 400
    assert fault in response.json()["error"]
    assert await audited(database) == []


async def test_what_is_overdue_can_be_listed_by_anybody(client):
    response = await client().get("/overdue")

    assert response.json() == {"service": "payment", "overdue": []}


async def test_a_database_that_is_away_is_an_answer_for_operators_too(tmp_path: Path):
    database = Database("postgresql://postgres@127.0.0.1:1/payment")
    routes = routes_of(database, nothing_is_ready, SecretStr(TOKEN))
    transport = httpx.ASGITransport(Starlette(routes=routes))

    async with httpx.AsyncClient(transport=transport, base_url="http://payment", headers=SHOWING) as operator:
        response = await operator.post("/dead-letters/redrive", json=WHY | {"all": True})

    assert response.status_code == 503
    await database.close()


# -- what is sensitive -------------------------------------------------------------------------------------------------


@pytest.fixture
async def personal_letter(database: Database) -> None:
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
    told = "GatewayError: no card 'card_of_ada' of ada@shop.example"
    personal = replace(letter("order-7"), message=message, error=told, traceback=f"line 7\n{told}")
    async with database.transaction() as session:
        await dead_letters.add(await session.connection(), [personal])


SECRETS = ("ada@shop.example", "card_of_ada", "Lovelace", "secret-cookie")


async def test_a_letters_message_error_and_traceback_show_nothing_sensitive(operator, personal_letter):
    shown = (await operator.get("/dead-letters/letter-order-7")).json()["dead_letter"]

    assert not [secret for secret in SECRETS if secret in str(shown)]
    assert json.loads(shown["body"])["total_amount"] == 4900
    assert shown["error"] == "GatewayError: no card '***' of ***"
    assert shown["headers"] == {"saga-type": "order", "x-shop-session": "***"}


@pytest.mark.parametrize("path", ["/dead-letters", "/sagas/order-7"])
async def test_lists_show_nothing_sensitive_either(client, personal_letter, path):
    content = (await client().get(path)).json()

    assert "GatewayError: no card '***' of ***" in {each["error"] for each in content["dead_letters"]}
    assert not [secret for secret in SECRETS if secret in str(content)]


async def test_of_an_event_that_nobody_declares_nothing_is_shown(operator, database):
    stranger = WireMessage(b'{"card": "4111"}', "bank.CardSwallowed", correlation_id="order-8")
    told = replace(letter("order-8"), message=stranger, error="no card 4111", traceback="no card 4111")
    async with database.transaction() as session:
        await dead_letters.add(await session.connection(), [told])

    listed = (await operator.get("/dead-letters", params={"saga": "order-8"})).json()
    shown = (await operator.get("/dead-letters/letter-order-8")).json()

    assert "4111" not in f"{listed}{shown}"
    assert shown["dead_letter"]["body"] == "(not shown: unknown event)"


# -- one saga, pushed --------------------------------------------------------------------------------------------------


async def waiting(database: Database) -> list[tuple[str, str]]:
    async with database.reading() as connection:
        return [(row["event_type"], row["saga_id"]) for row in await outbox.listed(connection)]


async def noted(database: Database, saga_id: str) -> list[tuple[str, str | None]]:
    async with database.reading() as connection:
        entries = await saga_log_queries.entries(connection, saga_id=saga_id)
    return [(each.to_state, each.error) for each in entries if each.position is None]


async def test_a_nudge_sends_the_last_event_again_and_says_who_wanted_it(operator, database):
    response = await operator.post("/sagas/order-2/nudge", json=WHY)

    (row,) = response.json()["rows"]
    assert (row["step"], row["event_type"], row["outcome"]) == ("process_payment", "PaymentProcessed", "nudged")
    assert await waiting(database) == [("PaymentProcessed", "order-2")]
    assert await noted(database, "order-2") == [("nudged", "the gateway is back")]
    assert await audited(database) == [("ada@desk", "nudge", "the gateway is back")]


async def test_an_abort_asks_all_and_says_who_wanted_it(operator, database):
    response = await operator.post("/sagas/order-2/abort", json=WHY)

    (row,) = response.json()["rows"]
    assert (row["event_type"], row["outcome"], row["why"]) == ("AbortRequested", "aborted", None)
    assert await waiting(database) == [("AbortRequested", "order-2")]
    assert await noted(database, "order-2") == [("aborted", "the gateway is back")]
    assert await audited(database) == [("ada@desk", "abort", "the gateway is back")]


@pytest.mark.parametrize("verb", ["nudge", "abort"])
async def test_a_saga_that_has_ended_is_pushed_no_more_and_it_says_so(operator, database, verb):
    response = await operator.post(f"/sagas/order-1/{verb}", json=WHY)

    (row,) = response.json()["rows"]
    assert row["outcome"] == "refused"
    assert row["why"].startswith("saga order-1 has ended (Completed)")
    assert await waiting(database) == await audited(database) == []


@pytest.mark.parametrize("verb", ["nudge", "abort"])
@pytest.mark.parametrize("saga_id", ["order-404", "%00", "a b"])
async def test_a_saga_that_is_not_known_can_not_be_pushed(operator, database, verb, saga_id):
    response = await operator.post(f"/sagas/{saga_id}/{verb}", json=WHY)

    assert response.status_code == 404
    assert await waiting(database) == await audited(database) == []


@pytest.mark.parametrize("verb", ["nudge", "abort"])
async def test_a_push_needs_a_reason(operator, database, verb):
    response = await operator.post(f"/sagas/order-2/{verb}", json={"actor": "ada@desk"})

    assert (response.status_code, response.json()) == (400, {"error": "reason: Field required"})
    assert await waiting(database) == await audited(database) == []


# -- what waits --------------------------------------------------------------------------------------------------------


async def test_the_outbox_is_listed_page_by_page_without_its_messages(client, operator):
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


async def test_letters_are_told_in_groups_the_largest_first(client, personal_letter):
    content = (await client().get("/dead-letters/groups")).json()

    (group,) = content["groups"]
    assert (group["reason"], group["step"], group["count"]) == ("retries spent", "process_payment", 3)
    assert group["first_at"] <= group["last_at"]


async def test_a_group_has_the_newest_letters_error_shortened_and_masked(client, operator, personal_letter):
    newest = (await operator.get("/dead-letters")).json()["dead_letters"][0]

    (group,) = (await client().get("/dead-letters/groups")).json()["groups"]

    assert (group["error"], group["saga_id"]) == (newest["error"], newest["saga_id"])
    assert len(group["error"]) <= 200
    assert not [secret for secret in SECRETS if secret in str(group)]


@pytest.fixture
async def gift(database: Database) -> None:
    """A saga of another type under the id of an order, with a dead letter of its own."""
    async with database.transaction() as session:
        connection = await session.connection()
        entries = [each for each in paid_order("order-2") if each.service == "payment"]
        await saga_log.append(connection, [replace(each, saga_type="gift", emitted_body="{}") for each in entries])
        message = replace(letter("order-2").message, message_id="of the gift", headers={"saga-type": "gift"})
        await dead_letters.add(connection, [replace(letter("order-2"), id="letter-gift", message=message)])


async def test_an_id_of_two_types_is_told_of_by_its_type(operator, gift):
    unsaid = await operator.get("/sagas/order-2")
    said = {kind: (await operator.get("/sagas/order-2", params={"type": kind})).json() for kind in ("gift", "order")}
    neither = await operator.get("/sagas/order-2", params={"type": "loan"})

    assert unsaid.status_code == 409
    assert (unsaid.json()["saga_id"], unsaid.json()["types"]) == ("order-2", ["gift", "order"])
    assert "name the type" in unsaid.json()["error"]
    for kind, told in said.items():
        rows = [*told["entries"], *told["dead_letters"]]
        assert (told["saga_type"], {row["saga_type"] for row in rows}) == (kind, {kind})
    assert neither.status_code == 404


async def test_the_log_of_an_id_is_narrowed_to_a_type(operator, gift):
    for asked in ({}, {"after": 0}):
        both = (await operator.get("/log", params={"saga": "order-2"} | asked)).json()["entries"]
        one = (await operator.get("/log", params={"saga": "order-2", "type": "gift"} | asked)).json()["entries"]

        assert {each["saga_type"] for each in both} == {"order", "gift"}
        assert one == [each for each in both if each["saga_type"] == "gift"]


@pytest.mark.parametrize("verb", ["replay", "nudge", "abort"])
async def test_what_is_done_to_an_id_of_two_types_is_done_to_one(operator, database, gift, verb):
    unsaid = await operator.post(f"/sagas/order-2/{verb}", json=WHY)
    nothing = await audited(database)
    said = await operator.post(f"/sagas/order-2/{verb}", json=WHY | {"type": "gift"})

    assert (unsaid.status_code, unsaid.json()["types"], nothing) == (409, ["gift", "order"], [])
    assert (said.status_code, {row["saga_type"] for row in said.json()["rows"]}) == (200, {"gift"})
    async with database.reading() as connection:
        assert {row["saga_type"] for row in await audit_log.listed(connection)} == {"gift"}


@pytest.mark.parametrize("verb", ["redrive", "drop"])
async def test_the_letters_of_an_id_of_two_types_are_those_of_one(operator, database, gift, verb):
    unsaid = await operator.post(f"/dead-letters/{verb}", json=WHY | {"saga": "order-2"})
    said = await operator.post(f"/dead-letters/{verb}", json=WHY | {"saga": "order-2", "type": "gift"})

    assert (unsaid.status_code, unsaid.json()["types"]) == (409, ["gift", "order"])
    assert [row["id"] for row in said.json()["rows"]] == ["letter-gift"]
    async with database.reading() as connection:
        left = await dead_letter_queries.listed(connection)
    assert {row["id"] for row in left} == {"letter-order-1", "letter-order-2"}
