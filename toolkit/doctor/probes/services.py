"""Facts from running services over HTTP: readiness, tokens, clocks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from toolkit.client.http_connection import authorization
from toolkit.configuration.environment import DEMO_TOKEN
from toolkit.configuration.settings import Settings
from toolkit.doctor.facts import ClockFacts, ServiceFacts
from toolkit.doctor.probes.clocks import date_of, stated
from toolkit.doctor.targets import Target
from toolkit.errors import describe
from toolkit.urls import is_loopback, shown_url
from toolkit.web.client import BoundedClient

_TIMEOUT = 5
_REFUSALS = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


async def ask_service(target: Target, settings: Settings, *, is_probing: bool) -> ServiceFacts:
    """Return the facts of the service at the target's address; `is_probing` tries the demo's token, too."""
    name, url = target.name, target.url or ""
    facts = ServiceFacts(name=name, url=url, is_local=is_loopback(urlsplit(url).hostname or ""))
    async with BoundedClient(base_url=url, timeout=_TIMEOUT) as client:
        try:
            return replace(
                facts,
                ready=_parts((await client.get("/readyz")).json()),
                dead_letter_answer=await _dead_letter_answer(client, settings.api_token),
                takes_demo_token=is_probing and await _takes_demo_token(client),
                is_open=(await client.get("/stats")).status_code not in _REFUSALS,
                clock=await _clock(client, name, settings.api_read_token or settings.api_token),
            )
        except (httpx.HTTPError, ValueError) as error:
            return replace(facts, fault=f"{shown_url(url)} does not answer as a service does: {describe(error)}")


def _parts(answer: object) -> dict[str, bool]:
    """Return the parts in an answer of `/readyz`.

    Raises:
        ValueError: it is not that of a service.
    """
    if not isinstance(answer, dict) or not {"broker", "database", "relay"} <= answer.keys():
        raise ValueError("/readyz has no broker, database and relay")
    return {str(part): is_ready is True for part, is_ready in answer.items()}


async def _dead_letter_answer(client: httpx.AsyncClient, token: SecretStr | None) -> int:
    """Request a dead letter that does not exist; the status is a refusal if the token does not suffice."""
    return (await client.get("/dead-letters/saga-doctor", headers=authorization(token))).status_code


async def _takes_demo_token(client: httpx.AsyncClient) -> bool:
    return await _dead_letter_answer(client, SecretStr(DEMO_TOKEN)) not in _REFUSALS


async def _clock(client: httpx.AsyncClient, name: str, token: SecretStr | None) -> ClockFacts | None:
    asked = datetime.now(UTC)
    snapshot = await client.get("/stats", headers=authorization(token))
    exact = stated(name, snapshot.json().get("at"), asked=asked) if snapshot.is_success else None
    return exact or date_of(name, snapshot, asked)
