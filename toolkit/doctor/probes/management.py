"""Facts from the broker's management API that AMQP does not have: bindings, policies, alarms, its clock."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit, urlunsplit

import httpx

from toolkit.configuration.settings import Settings
from toolkit.doctor.facts import Binding, BrokerFacts, ManagedQueue, ManagementFacts
from toolkit.doctor.probes.clocks import date_of
from toolkit.errors import describe
from toolkit.web.client import BoundedClient

_TIMEOUT = 5
#: The management API's scheme and port for each scheme of AMQP.
_PORTS = {"amqp": ("http", 15672), "amqps": ("https", 15671)}
_QUEUE = "name,consumers,durable,auto_delete,arguments,policy,operator_policy,effective_policy_definition"


class _RefusedError(Exception):
    """The API does not answer as expected."""


async def ask_management(url: str | None, settings: Settings, broker: BrokerFacts) -> ManagementFacts:
    """Return the facts of the API at this URL, or at the broker's host with the broker's login."""
    base, login = _where(url, settings)
    async with BoundedClient(base_url=base, auth=login, timeout=_TIMEOUT, verify=_authority(settings)) as client:
        try:
            return await _asked(client, base, settings, broker)
        except (_RefusedError, httpx.HTTPError, ValueError, KeyError, TypeError) as error:  # or it is another server
            return ManagementFacts(url=base, fault=describe(error))


def _where(url: str | None, settings: Settings) -> tuple[str, tuple[str, str]]:
    """Return the API's address without its login, and the login."""
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


def _authority(settings: Settings) -> ssl.SSLContext | bool:
    """Return the trusted certificates: those of the authority in the broker's URL, if it names one."""
    files = parse_qs(urlsplit(settings.broker_url).query).get("cafile")
    return ssl.create_default_context(cafile=files[0]) if files else True


async def _asked(client: BoundedClient, base: str, settings: Settings, broker: BrokerFacts) -> ManagementFacts:
    asked = datetime.now(UTC)
    overview = await _response(client, "/api/overview")
    clock = date_of("the broker", overview, asked)
    if (name := overview.json().get("cluster_name")) != broker.cluster:
        raise _RefusedError(f"it is another broker: its name is {name}, SAGA_BROKER_URL leads to {broker.cluster}")
    vhost = quote(broker.vhost, safe="")
    exchanges = {each["name"]: each for each in (await _response(client, f"/api/exchanges/{vhost}")).json()}
    shared = [name for name in (settings.exchange, f"{settings.exchange}.dead") if name in exchanges]
    queues = (await _response(client, f"/api/queues/{vhost}?columns={_QUEUE}")).json()
    bindings = (await _response(client, f"/api/bindings/{vhost}")).json()
    return ManagementFacts(
        url=base,
        bindings=tuple(
            Binding(each["source"], each["destination"], each["routing_key"])
            for each in bindings
            if each["destination_type"] == "queue"
        ),
        queues={each["name"]: _queue(each) for each in queues},
        alarms=await _alarms(client),
        kinds={name: exchanges[name]["type"] for name in shared},
        alternate=_alternate(exchanges.get(settings.exchange, {})),
        clock=clock,
    )


async def _response(client: BoundedClient, path: str) -> httpx.Response:
    response = await client.get(path)
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise _RefusedError("it refuses this login: give it the tag monitoring")
    if response.is_error or "json" not in response.headers.get("content-type", ""):
        raise _RefusedError(f"{path} answers {response.status_code}: it is no management API")
    return response


def _queue(row: Mapping[str, Any]) -> ManagedQueue:
    kinds = (("policy", "clear_policy"), ("operator_policy", "clear_operator_policy"))
    own = {name: row[name] for name in ("durable", "auto_delete")}
    return ManagedQueue(
        declared=own | dict(row.get("arguments") or {}),
        policy=row.get("effective_policy_definition") or {},
        clear_commands=tuple(f"{command} {row[kind]}" for kind, command in kinds if row.get(kind)),
        consumers=row.get("consumers"),
    )


def _alternate(exchange: Mapping[str, Any]) -> str | None:
    """Return what may take unroutable messages; a login without the rights does not see a policy's definition."""
    if declared := (exchange.get("arguments") or {}).get("alternate-exchange"):
        return f"the alternate exchange {declared}"
    return f"the policy {exchange['policy']} of the exchange" if exchange.get("policy") else None


async def _alarms(client: BoundedClient) -> tuple[str, ...] | None:
    """Return the nodes in alarm, and the resource that each lacks; None if the API does not report them."""
    response = await client.get("/api/health/checks/alarms")
    if response.status_code not in (httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE):
        return None
    return tuple(f"{each['node']} is short of {each['resource']}" for each in response.json().get("alarms", ()))
