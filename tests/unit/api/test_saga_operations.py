"""Replay, nudge and abort over the API."""

from __future__ import annotations

import pytest

from tests.unit.api.payment_api import WHY, audited
from toolkit.persistence import outbox, saga_log_queries
from toolkit.persistence.database import Database


async def test_a_replay_lists_the_emitted_events(operator):
    response = await operator.post("/sagas/order-2/replay", json=WHY)

    (row,) = response.json()["rows"]
    assert (row["step"], row["event_type"], row["outcome"]) == ("process_payment", "PaymentProcessed", "replayed")


@pytest.mark.parametrize("saga_id", ["order-404", "%00", "a b"])
async def test_an_unknown_saga_is_not_replayed(operator, saga_id):
    response = await operator.post(f"/sagas/{saga_id}/replay", json=WHY)

    assert response.status_code == 404


async def waiting(database: Database) -> list[tuple[str, str]]:
    async with database.reading() as connection:
        return [(row.event_type, row.saga_id) for row in await outbox.listed(connection)]


async def noted(database: Database, saga_id: str) -> list[tuple[str, str | None]]:
    async with database.reading() as connection:
        entries = await saga_log_queries.entries(connection, saga_id=saga_id)
    return [(each.to_state, each.error) for each in entries if each.position is None]


async def test_a_nudge_repeats_the_last_event(operator, database):
    response = await operator.post("/sagas/order-2/nudge", json=WHY)

    (row,) = response.json()["rows"]
    assert (row["step"], row["event_type"], row["outcome"]) == ("process_payment", "PaymentProcessed", "nudged")
    assert await waiting(database) == [("PaymentProcessed", "order-2")]
    assert await noted(database, "order-2") == [("nudged", "the gateway is back")]
    assert await audited(database) == [("ada@desk", "nudge", "the gateway is back")]


async def test_an_abort_is_published_and_audited(operator, database):
    response = await operator.post("/sagas/order-2/abort", json=WHY)

    (row,) = response.json()["rows"]
    assert (row["event_type"], row["outcome"], row["why"]) == ("AbortRequested", "aborted", None)
    assert await waiting(database) == [("AbortRequested", "order-2")]
    assert await noted(database, "order-2") == [("aborted", "the gateway is back")]
    assert await audited(database) == [("ada@desk", "abort", "the gateway is back")]


@pytest.mark.parametrize("verb", ["nudge", "abort"])
async def test_an_ended_saga_is_neither_nudged_nor_aborted(operator, database, verb):
    response = await operator.post(f"/sagas/order-1/{verb}", json=WHY)

    (row,) = response.json()["rows"]
    assert row["outcome"] == "refused"
    assert row["why"].startswith("saga order-1 has ended (Completed)")
    assert await waiting(database) == await audited(database) == []


@pytest.mark.parametrize("verb", ["nudge", "abort"])
@pytest.mark.parametrize("saga_id", ["order-404", "%00", "a b"])
async def test_an_unknown_saga_is_neither_nudged_nor_aborted(operator, database, verb, saga_id):
    response = await operator.post(f"/sagas/{saga_id}/{verb}", json=WHY)

    assert response.status_code == 404
    assert await waiting(database) == await audited(database) == []


@pytest.mark.parametrize("verb", ["nudge", "abort"])
async def test_a_saga_operation_needs_a_reason(operator, database, verb):
    response = await operator.post(f"/sagas/order-2/{verb}", json={"actor": "ada@desk"})

    assert (response.status_code, response.json()) == (400, {"error": "reason: Field required"})
    assert await waiting(database) == await audited(database) == []
