"""The read-only API: every response is JSON, and an error names the allowed values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from services.payment.app import app as payment_service
from tests.orders import fulfilled_order, paid_order, refused_order
from toolkit.api import Access, ApiContext, api_routes, application
from toolkit.clock import SystemClock
from toolkit.declaration.contract import Contract
from toolkit.persistence import saga_log
from toolkit.persistence.database import Database
from toolkit.protocol.log_entry import DetailedEntry
from toolkit.protocol.rows import field_names

AWAY = "postgresql://postgres@127.0.0.1:1/payment"


@pytest.fixture
def parts() -> dict[str, bool]:
    return {"broker": True, "database": True, "relay": True}


@pytest.fixture
async def payment(tmp_path: Path, parts: dict[str, bool]) -> AsyncIterator[httpx.AsyncClient]:
    database = Database(f"sqlite:///{tmp_path}/payment.db")
    await database.create_tables()
    entries = [*fulfilled_order("order-1"), *paid_order("order-2"), *refused_order("order-3")]
    async with database.transaction() as session:
        connection = await session.connection()
        await saga_log.append(connection, [entry for entry in entries if entry.service == "payment"])
    yield client(database, parts)
    await database.close()


@pytest.fixture
async def without_database(parts: dict[str, bool]) -> AsyncIterator[httpx.AsyncClient]:
    database = Database(AWAY)
    yield client(database, parts)
    await database.close()


def client(database: Database, parts: dict[str, bool]) -> httpx.AsyncClient:
    async def readiness() -> dict[str, bool]:
        return parts

    context = ApiContext(
        service=payment_service, contract=Contract.of(payment_service), database=database, readiness=readiness,
        queue="saga.payment", clock=SystemClock(),
    )  # fmt: skip
    api = application(api_routes(context, Access("payment", token=None)), names=("payment",))
    return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://payment")


async def test_a_service_is_alive_during_a_database_outage(without_database):
    response = await without_database.get("/healthz")

    assert (response.status_code, response.json()) == (200, {"service": "payment", "alive": True})


async def test_a_service_is_ready_with_all_its_parts(payment):
    response = await payment.get("/readyz")

    assert (response.status_code, response.json()) == (200, {"broker": True, "database": True, "relay": True})


async def test_an_unready_service_names_the_missing_part(payment, parts):
    parts["broker"] = False

    response = await payment.get("/readyz")

    assert (response.status_code, response.json()) == (503, {"broker": False, "database": True, "relay": True})


async def test_a_sagas_entries_are_ordered_with_utc_times(payment):
    content = (await payment.get("/sagas/order-3")).json()

    assert (content["service"], content["saga_id"]) == ("payment", "order-3")
    assert [each["to_state"] for each in content["entries"]] == ["executing", "completed", "compensated", "ended"]
    assert all(tuple(each) == field_names(DetailedEntry) for each in content["entries"])
    assert datetime.fromisoformat(content["entries"][0]["at"]) == datetime(2026, 5, 4, 12, tzinfo=UTC)


async def test_an_unknown_saga_is_not_found(payment):
    response = await payment.get("/sagas/order-404")

    assert (response.status_code, response.json()["error"]) == (404, "payment knows no saga 'order-404'")


@pytest.mark.parametrize("saga_id", ["%00", "a%2Fb", "a b", "x" * 65, "%F0%9F%98%80", ""])
async def test_an_invalid_saga_id_is_not_found(payment, saga_id):
    found = await payment.get(f"/sagas/{saga_id}")
    listed = await payment.get(f"/log?saga={saga_id}")

    assert (found.status_code, found.json()["service"]) == (404, "payment")
    assert listed.json() == {"service": "payment", "entries": []}


async def test_sagas_are_filtered_by_their_state(payment):
    content = (await payment.get("/sagas", params={"state": "Failed"})).json()

    assert [each["saga_id"] for each in content["sagas"]] == ["order-3"]


async def test_the_log_is_bounded_to_its_newest_entries(payment):
    content = (await payment.get("/log", params={"limit": "2"})).json()

    assert [each["to_state"] for each in content["entries"]] == ["compensated", "ended"]


async def test_the_log_is_filtered_by_saga(payment):
    content = (await payment.get("/log", params={"saga": "order-2"})).json()

    assert {each["saga_id"] for each in content["entries"]} == {"order-2"}


async def test_one_sagas_log_is_read_page_by_page(payment):
    first = (await payment.get("/log", params={"saga": "order-3", "after": "0", "limit": "3"})).json()
    last = (await payment.get("/log", params={"saga": "order-3", "after": first["next"], "limit": "3"})).json()
    unknown = (await payment.get("/log?saga=%00&after=0")).json()

    assert [len(each["entries"]) for each in (first, last)] == [3, 1]
    assert {each["saga_id"] for each in first["entries"] + last["entries"]} == {"order-3"}
    assert (last["next"], unknown["entries"], unknown["next"]) == (None, [], None)


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many", "", "1.5", "²", "0000010000", "9" * 5000])
@pytest.mark.parametrize("path", ["/log", "/sagas"])
async def test_an_invalid_limits_error_names_the_range(payment, path, limit):
    response = await payment.get(path, params={"limit": limit})

    assert response.status_code == 400
    assert response.json()["error"].endswith("take a whole number from 1 to 1000")


async def test_an_unknown_states_error_names_all_states(payment):
    response = await payment.get("/sagas", params={"state": "Lost"})

    assert response.status_code == 400
    assert response.json() == {
        "error": "state='Lost' is not allowed: take one of Started, Pending, Compensating, Completed, Failed"
    }


@pytest.mark.parametrize("path", ["/log", "/sagas", "/sagas/order-1"])
async def test_a_database_outage_is_answered_with_503(without_database, path):
    response = await without_database.get(path)

    assert response.status_code == 503
    assert response.json() == {"error": "the database does not answer; /readyz reports when it works again"}


@pytest.mark.parametrize("path", ["/log", "/sagas", "/sagas/order-1", "/healthz", "/readyz"])
async def test_nothing_can_be_written(payment, path):
    response = await payment.post(path, json={})

    assert (response.status_code, response.json()) == (405, {"error": "POST is not allowed here"})
    assert "GET" in response.headers["allow"]


async def test_an_unknown_paths_error_lists_all_paths(payment):
    response = await payment.get("/nowhere")

    assert response.status_code == 404
    assert response.json()["error"].startswith("there is no '/nowhere'; there are: /healthz, /readyz")
    assert "/sagas, /sagas/{id}" in response.json()["error"]
