"""The API of an embedded service below a path keeps its tokens, and knows its prefix."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from tests.unit.embedding.shop import shop
from tests.unit.embedding.web_shop import BEARER, TOKEN, WebShop
from toolkit import Settings
from toolkit.embedding import saga_api, saga_lifespan


async def test_reading_takes_a_token_and_health_none(settings: Settings) -> None:
    async with WebShop(settings, shop()).open() as client:
        without = await client.get("/saga/shop/sagas")
        read = await client.get("/saga/shop/sagas", headers=BEARER)
        health = [(await client.get(f"/saga/shop/{path}")).status_code for path in ("healthz", "readyz")]

    assert (without.status_code, without.headers["www-authenticate"]) == (401, "Bearer")
    assert (read.status_code, read.json()) == (200, {"service": "shop", "sagas": [], "next": None})
    assert health == [200, 200]


@pytest.mark.parametrize(("token", "code"), [(None, 403), ("another token of enough bytes", 200)])
async def test_changes_take_the_services_token(settings: Settings, token: str | None, code: int) -> None:
    guarded = Settings.model_validate(settings.model_dump() | {"api_token": token, "api_read_token": TOKEN})
    body = {"older_than": "P30D", "actor": "ada", "reason": "a test"}
    async with WebShop(guarded, shop()).open() as client:
        read_only = await client.post("/saga/shop/prune", json=body, headers=BEARER)
        pruned = await client.post("/saga/shop/prune", json=body, headers={"authorization": f"Bearer {token}"})

    assert (read_only.status_code, pruned.status_code) == (403, code)


async def test_reads_may_be_left_to_the_application(settings: Settings) -> None:
    service = shop()
    app = FastAPI(lifespan=saga_lifespan(service, settings))
    app.mount("/saga", saga_api(service, reads_are_open=True))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client,
    ):
        read = await client.get("/saga/sagas")
        written = await client.post("/saga/prune", json={})
        document = (await client.get("/saga/openapi.json")).json()

    assert (read.status_code, written.status_code) == (200, 403)
    assert "security" not in document["paths"]["/sagas"]["get"]


async def test_documents_and_errors_name_the_prefix(settings: Settings) -> None:
    async with WebShop(settings, shop()).open() as client:
        document = (await client.get("/saga/shop/openapi.json", headers=BEARER)).json()
        unknown = await client.get("/saga/shop/orders", headers=BEARER)

    assert document["servers"] == [{"url": "/saga/shop"}]
    assert "/sagas/{id}" in document["paths"]
    assert unknown.status_code == 404
    assert (
        "there is no '/saga/shop/orders'; there are: /saga/shop/healthz, /saga/shop/readyz," in unknown.json()["error"]
    )


async def test_an_api_without_its_service_says_so() -> None:
    app = FastAPI()
    app.mount("/saga", saga_api(shop()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example") as client:
        answer = await client.get("/saga/sagas")

    assert answer.status_code == 503
    assert "give the application lifespan=saga_lifespan(shop)" in answer.json()["error"]
