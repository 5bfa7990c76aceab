"""A console of one service's database, and what its clients do: sign in, fill in forms, redrive and drop."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
from pydantic import SecretStr
from starlette.applications import Starlette

from tests.eventually import eventually
from toolkit.client.service_client import ServiceClient
from toolkit.clock import SystemClock
from toolkit.console.app import application
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import audit_log, dead_letters
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter

SECRET = SecretStr("a-token-of-the-services")


@asynccontextmanager
async def local_console(
    clients: Sequence[ServiceClient], *, token: SecretStr | None = SECRET
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a browser on the console's own machine."""
    app = application(clients, token=token, must_sign_in=False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8080") as browser:
        yield browser


def from_address(app: Starlette, address: str) -> httpx.AsyncClient:
    """Return a browser with this address."""
    transport = httpx.ASGITransport(app, client=(address, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://console.example")


async def sign_in(client: httpx.AsyncClient, name: str = "Grace") -> None:
    """Start a session with the services' token."""
    fields = {"token": await form_token(client, "/sign-in"), "name": name, "secret": SECRET.get_secret_value()}
    assert (await client.post("/sign-in", data=fields)).status_code == 303


async def form_token(client: httpx.AsyncClient, path: str = "/sagas/x", of: str = "") -> str:
    """Return the token of a page's first form, or of the form with that action."""
    for each in (path, "/sign-in"):
        page = (await client.get(each)).text
        if found := re.search(rf'action="{of}[^"]*".*?name="token" value="([^"]+)"', page, re.DOTALL):
            return found[1]
    raise AssertionError(f"no form on {path}")


async def add_dead_letters(database: Database, *reasons: str, saga_id: str = "order-1") -> None:
    """Add a dead letter with each of these reasons."""
    added = [
        DeadLetter(
            id=new_id(),
            service="payment",
            reason=reason,
            error=f"{reason}: nothing to be done",
            message=WireMessage(b"{}", "order.OrderCreated", message_id=new_id(), correlation_id=saga_id),
            at=SystemClock().now(),
        )
        for reason in reasons
    ]
    async with database.transaction() as session:
        await dead_letters.add(await session.connection(), added)


async def redrive_or_drop(
    client: httpx.AsyncClient, database: Database, verb: str, reason_is: str, *, name: str = "Ada"
) -> str:
    """Redrive or drop the dead letters of a reason, wait until it is audited, and return the job's address."""
    address = f"/attention/{verb}?service=payment&reason_is={reason_is}"
    fields = {"token": await form_token(client, address, of="/attention"), "reason": "mended", "name": name}
    (total,) = re.findall(r'name="total" value="([0-9]+)"', (await client.get(address)).text)
    fields |= {"service": "payment", "reason_is": reason_is, "job": new_id(), "total": total}
    before = len(await actors(database))
    answer = await client.post(f"/attention/{verb}", data=fields)
    assert answer.status_code == 303

    async def is_done() -> bool:
        return len(await actors(database)) > before

    await eventually(is_done, what=f"the {verb}")
    return answer.headers["location"]


async def actors(database: Database) -> list[str]:
    """Return the actors of the audit's entries, the oldest first."""
    async with database.reading() as connection:
        return [row.actor for row in reversed(await audit_log.listed(connection))]
