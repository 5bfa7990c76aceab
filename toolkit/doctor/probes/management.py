"""Asking the broker's management API for what AMQP doesn't tell: bindings, policies, alarms, and its clock."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit, urlunsplit

import httpx

from toolkit.configuration.settings import Settings
from toolkit.doctor.facts import Binding, BrokerFacts, ManagementFacts
from toolkit.doctor.probes.clocks import date_of
from toolkit.errors import describe
from toolkit.web.client import BoundedClient

_TIMEOUT = 5
#: Where RabbitMQ's management listens beside AMQP, without and with TLS.
_PORTS = {"amqp": ("http", 15672), "amqps": ("https", 15671)}


class _RefusedError(Exception):
    """The API does not tell us; the text says why."""


async def ask_management(url: str | None, settings: Settings, broker: BrokerFacts) -> ManagementFacts:
    """Ask at this URL, or else at the broker's host, by the broker's login."""
    base, login = _where(url, settings)
    trusted = _authority(settings)
    client = BoundedClient(base_url=base, auth=login, timeout=_TIMEOUT, verify=trusted)
    async with client:
        try:
            return await _asked(client, base, settings, broker)
        except (_RefusedError, httpx.HTTPError, ValueError, KeyError, TypeError) as error:  # or it is something else
            return ManagementFacts(url=base, fault=describe(error))


def _authority(settings: Settings) -> ssl.SSLContext | bool:
    """Return whose certificates are trusted: those of the broker's authority, where its URL names one."""
    files = parse_qs(urlsplit(settings.broker_url).query).get("cafile")
    return ssl.create_default_context(cafile=files[0]) if files else True


async def _asked(client: BoundedClient, base: str, settings: Settings, broker: BrokerFacts) -> ManagementFacts:
    asked = datetime.now(UTC)
    overview = await _response(client, "/api/overview")
    clock = date_of("the broker", overview, asked)
    if (name := overview.json().get("cluster_name")) != broker.cluster:
        raise _RefusedError(f"that is another broker: it is called {name}, SAGA_BROKER_URL leads to {broker.cluster}")
    vhost = quote(broker.vhost, safe="")
    shared = (settings.exchange, f"{settings.exchange}.dead")
    exchange, dead = [
        await _json(client, f"/api/exchanges/{vhost}/{quote(name, safe='')}", or_else={}) for name in shared
    ]
    names = [queue.name for queue in broker.queues if queue.is_there]
    queues = {name: await _json(client, f"/api/queues/{vhost}/{quote(name, safe='')}", or_else={}) for name in names}
    return ManagementFacts(
        url=base,
        bindings=_bindings(await _json(client, f"/api/bindings/{vhost}")),
        declared={name: _declared(told) for name, told in queues.items() if told},
        policies={name: told.get("effective_policy_definition") or {} for name, told in queues.items()},
        policy_names={name: _policy_names(told) for name, told in queues.items()},
        consumers=_consumers(await _json(client, f"/api/queues/{vhost}?columns=name,consumers")),
        alarms=await _alarms(client),
        kinds={name: told["type"] for name, told in zip(shared, (exchange, dead), strict=True) if told},
        taker=_taker(exchange),
        clock=clock,
    )


def _where(url: str | None, settings: Settings) -> tuple[str, tuple[str, str]]:
    """Return the API's address and the login, which is never part of it."""
    broker = urlsplit(settings.broker_url)
    parts = urlsplit(url or "")
    user, password = unquote(broker.username or "guest"), unquote(broker.password or "guest")
    if not url:
        scheme, port = _PORTS[broker.scheme]
        host = broker.netloc.rpartition("@")[2].removesuffix(f":{broker.port}")
        return f"{scheme}://{host}:{port}", (user, password)
    if parts.username:
        user, password = unquote(parts.username), unquote(parts.password or "")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/"), (user, password)


async def _response(client: BoundedClient, path: str) -> httpx.Response:
    response = await client.get(path)
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise _RefusedError("it does not let this login in: give it the tag monitoring")
    if response.is_error or "json" not in response.headers.get("content-type", ""):
        raise _RefusedError(f"{path} answers {response.status_code}: it is no management API")
    return response


async def _json(client: BoundedClient, path: str, *, or_else: Any = None) -> Any:
    """Return an answer; or something else where there is no such thing."""
    response = await client.get(path)
    if response.status_code == httpx.codes.NOT_FOUND and or_else is not None:
        return or_else
    return (await _response(client, path)).json() if response.is_error else response.json()


def _bindings(rows: Iterable[Mapping[str, Any]]) -> tuple[Binding, ...]:
    return tuple(
        Binding(row["source"], row["destination"], row["routing_key"])
        for row in rows
        if row["destination_type"] == "queue"
    )


def _declared(told: Mapping[str, Any]) -> Mapping[str, object]:
    own = {name: told[name] for name in ("durable", "auto_delete")}
    return own | dict(told.get("arguments") or {})


def _policy_names(told: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = (("policy", "clear_policy"), ("operator_policy", "clear_operator_policy"))
    return tuple(f"{command} {told[kind]}" for kind, command in kinds if told.get(kind))


def _consumers(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    return {row["name"]: row["consumers"] for row in rows if row.get("consumers") is not None}


def _taker(told: Mapping[str, Any]) -> str | None:
    """Return what may take the messages that nobody is bound to: not every login may see what a policy says."""
    if declared := (told.get("arguments") or {}).get("alternate-exchange"):
        return f"the alternate exchange {declared}"
    return f"the policy {told['policy']} of the exchange" if told.get("policy") else None


async def _alarms(client: BoundedClient) -> tuple[str, ...] | None:
    """Return which nodes have run out of what, at this moment; None where the broker doesn't tell."""
    response = await client.get("/api/health/checks/alarms")
    if response.status_code not in (httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE):
        return None
    return tuple(f"{each['node']} is short of {each['resource']}" for each in response.json().get("alarms", ()))
