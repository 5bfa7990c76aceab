"""The shop's web application: FastAPI, with two services in its event loop, and their APIs below its paths."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
from fastapi import FastAPI

from tests.eventually import eventually
from tests.unit.embedding.shop import Order, OrderPlaced, Sessions, sessions, shop, warehouse
from toolkit import Service, Settings, start
from toolkit.embedding import saga_api, saga_lifespan
from toolkit.persistence.database import Database

TOKEN = "a token of twenty-six bytes"
BEARER: dict[str, Any] = {"authorization": f"Bearer {TOKEN}"}


class WebShop:
    """The application, with a client while it is open."""

    def __init__(self, settings: Settings, *services: Service, patience: float = 60) -> None:
        self.services = {each.name: each for each in (services or (shop(), warehouse()))}
        self.app = FastAPI(lifespan=self._lifespan)
        self._settings, self._patience = settings, timedelta(seconds=patience)
        for name, service in self.services.items():
            self.app.mount(f"/saga/{name}", saga_api(service))
        self.app.post("/orders/{order_id}")(self._place)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[httpx.AsyncClient]:
        """Run the application, and return a client of it."""
        async with self.app.router.lifespan_context(self.app):
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
                yield client

    async def _place(self, order_id: str) -> dict[str, str]:
        async with self._sessions() as session, session.begin():
            session.add(Order(id=order_id))
            return {"saga": await start(session, OrderPlaced(order_id=order_id))}

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            for service in self.services.values():
                await stack.enter_async_context(saga_lifespan(service, self._settings, patience=self._patience)(app))
            database = Database(self._settings.database_for("shop"))
            self._sessions: Sessions = await stack.enter_async_context(sessions(database))
            yield {"shop": "open"}


async def shipped(client: httpx.AsyncClient, order_id: str, **headers: str) -> dict[str, Any]:
    """Return the order's saga as the warehouse's API shows it, once it has ended."""

    async def look() -> dict[str, Any] | None:
        answer = await client.get(f"/saga/warehouse/sagas/{order_id}", headers=headers)
        found: dict[str, Any] = answer.json()
        return found if answer.status_code == 200 and found["entries"][-1]["saga_state"] == "Completed" else None

    found = await eventually(look, what=f"the end of {order_id}")
    assert found
    return found
