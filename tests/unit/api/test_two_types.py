"""Requests for an id that sagas of two types share name a type."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.orders import paid_order
from tests.unit.api.payment_api import WHY, audited, dead_letter_of
from toolkit.persistence import audit_log, dead_letter_queries, dead_letters, saga_log
from toolkit.persistence.database import Database


@pytest.fixture
async def gift(database: Database) -> None:
    """A saga of another type under the id of an order, with a dead letter of its own."""
    async with database.transaction() as session:
        connection = await session.connection()
        entries = [each for each in paid_order("order-2") if each.service == "payment"]
        await saga_log.append(connection, [replace(each, saga_type="gift", emitted_body="{}") for each in entries])
        message = replace(dead_letter_of("order-2").message, message_id="of the gift", headers={"saga-type": "gift"})
        await dead_letters.add(connection, [replace(dead_letter_of("order-2"), id="dead-letter-gift", message=message)])


async def test_a_shared_id_is_read_by_type(operator, gift):
    unnamed = await operator.get("/sagas/order-2")
    named = {kind: (await operator.get("/sagas/order-2", params={"type": kind})).json() for kind in ("gift", "order")}
    neither = await operator.get("/sagas/order-2", params={"type": "loan"})

    assert unnamed.status_code == 409
    assert (unnamed.json()["saga_id"], unnamed.json()["types"]) == ("order-2", ["gift", "order"])
    assert "name the type" in unnamed.json()["error"]
    for kind, shown in named.items():
        rows = [*shown["entries"], *shown["dead_letters"]]
        assert (shown["saga_type"], {row["saga_type"] for row in rows}) == (kind, {kind})
    assert neither.status_code == 404


async def test_the_log_is_filtered_by_type(operator, gift):
    for asked in ({}, {"after": 0}):
        both = (await operator.get("/log", params={"saga": "order-2"} | asked)).json()["entries"]
        one = (await operator.get("/log", params={"saga": "order-2", "type": "gift"} | asked)).json()["entries"]

        assert {each["saga_type"] for each in both} == {"order", "gift"}
        assert one == [each for each in both if each["saga_type"] == "gift"]


@pytest.mark.parametrize("verb", ["replay", "nudge", "abort"])
async def test_operations_change_the_named_type_only(operator, database, gift, verb):
    unnamed = await operator.post(f"/sagas/order-2/{verb}", json=WHY)
    nothing = await audited(database)
    named = await operator.post(f"/sagas/order-2/{verb}", json=WHY | {"type": "gift"})

    assert (unnamed.status_code, unnamed.json()["types"], nothing) == (409, ["gift", "order"], [])
    assert (named.status_code, {row["saga_type"] for row in named.json()["rows"]}) == (200, {"gift"})
    async with database.reading() as connection:
        assert {row.saga_type for row in await audit_log.listed(connection)} == {"gift"}


@pytest.mark.parametrize("verb", ["redrive", "drop"])
async def test_dead_letters_are_operated_by_type(operator, database, gift, verb):
    unnamed = await operator.post(f"/dead-letters/{verb}", json=WHY | {"saga": "order-2"})
    named = await operator.post(f"/dead-letters/{verb}", json=WHY | {"saga": "order-2", "type": "gift"})

    assert (unnamed.status_code, unnamed.json()["types"]) == (409, ["gift", "order"])
    assert [row["id"] for row in named.json()["rows"]] == ["dead-letter-gift"]
    async with database.reading() as connection:
        left = await dead_letter_queries.listed(connection)
    assert {row.id for row in left} == {"dead-letter-order-1", "dead-letter-order-2"}
