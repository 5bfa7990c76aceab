"""Rights on the broker, derived from contracts: each login gets what its service, or its client, needs.

RabbitMQ checks rights by the names of objects, and on a topic exchange by routing keys. A login without topic rights on
an exchange has all of them, so each login with access to one gets explicit ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.declaration.contract import Contract
from toolkit.declaration.events import AbortRequested, EndRequested, SagaEnded, SagaWaits, routing_key
from toolkit.messaging.envelope import CONTROL_EVENTS

#: A key that no service consumes and every login may write: the doctor tests with it that the broker returns messages.
PROBE_KEY = "saga.Probe"
#: The login of the command line, and that of the broker's operators.
CLIENT, ADMIN = "saga", "admin"

Rows = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class RoutingKeys:
    """The routing keys that a login may write to a topic exchange, and read from it; `owner.*` covers an owner."""

    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The rights of one login, by names of exchanges and queues, and by keys of topic exchanges.

    A service's queue and its own exchange share a name, and so their rights.
    """

    login: str
    configure: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    topics: Mapping[str, RoutingKeys] = field(default_factory=dict)


def rights_of(contracts: Iterable[Contract], exchange: str, logins: Mapping[str, Sequence[str]]) -> list[Rights]:
    """Return the rights that the logins of these services and of the command line need on this exchange.

    A service's logins are those that SAGA_LOGINS names for the events it emits; by default its own name.
    """
    contracts = sorted(contracts, key=lambda contract: contract.service)
    services = [(login, contract) for contract in contracts for login in _logins_of(contract, logins)]
    return [_of_client(contracts, exchange), *(_of_service(login, each, exchange) for login, each in services)]


def _logins_of(contract: Contract, logins: Mapping[str, Sequence[str]]) -> list[str]:
    named = [login for owner in _owners(contract) for login in logins.get(owner, ())]
    return list(dict.fromkeys(named)) or [contract.service]


def _owners(contract: Contract) -> list[str]:
    """Return the first words of the keys that a service may write; a coordinator's commands have its own name there."""
    commands = [contract.service] if contract.coordinates else []
    return list(dict.fromkeys((*(event.owner for event in contract.emitted()), *commands)))


def _of_client(contracts: Sequence[Contract], exchange: str) -> Rights:
    starting = {each.events[saga.starts_with].routing_key for each in contracts for saga in each.sagas
                if saga.starts_with in each.events}  # fmt: skip
    keys = (*sorted(starting), routing_key(AbortRequested), PROBE_KEY)
    return Rights(login=CLIENT, write=(exchange,), topics={exchange: RoutingKeys(write=keys)})


def _of_service(login: str, contract: Contract, exchange: str) -> Rights:
    own, dead = f"{exchange}.{contract.service}", f"{exchange}.dead"
    ends = (routing_key(SagaEnded),) if contract.ends_sagas else ()
    control = (*map(routing_key, (AbortRequested, EndRequested, SagaWaits)), *ends, PROBE_KEY)
    consumed = {*contract.bound_keys(), *map(routing_key, CONTROL_EVENTS)}
    shared = (exchange, dead)
    return Rights(
        login=login,
        configure=(own, f"{own}.dead"),
        write=(*shared, own, f"{own}.dead"),
        read=(*shared, own, f"{own}.dead"),
        topics={
            exchange: RoutingKeys(
                write=(*(f"{owner}.*" for owner in _owners(contract)), *control), read=tuple(sorted(consumed))
            ),
            dead: RoutingKeys(write=(own,), read=(own,)),
        },
    )


def as_rows(rights: Iterable[Rights]) -> Rows:
    """Return a row for each login, object and key, with the login's rights there; all others are denied."""
    return [row for each in rights for row in _rows(each)]


def _rows(rights: Rights) -> Iterator[dict[str, str]]:
    for name in dict.fromkeys((*rights.write, *rights.read, *rights.configure)):
        keys = rights.topics.get(name)
        if keys is None:
            may = [right for right in ("configure", "write", "read") if name in getattr(rights, right)]
            yield {"login": rights.login, "object": name, "key": "", "right": ", ".join(may)}
            continue
        for key in dict.fromkeys((*keys.write, *keys.read)):
            may = [right for right in ("write", "read") if key in getattr(keys, right)]
            yield {"login": rights.login, "object": name, "key": key, "right": ", ".join(may)}


def as_definitions(rights: Sequence[Rights], exchange: str, *, vhost: str) -> dict[str, Any]:
    """Return definitions that RabbitMQ imports: logins, their rights, and the shared exchanges.

    Passwords are placeholders: `@LOGIN_PASSWORD@`.
    """
    shared = {
        "vhost": vhost,
        "type": "topic",
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }
    everything = {"vhost": vhost, "user": ADMIN, "configure": ".*", "write": ".*", "read": ".*"}
    return {
        "vhosts": [{"name": vhost}],
        "users": [_user(ADMIN, "administrator"), *(_user(each.login, *_tags(each)) for each in rights)],
        "permissions": [everything, *(_permission(each, vhost) for each in rights)],
        "topic_permissions": [row for each in rights for row in _topic_permissions(each, vhost)],
        "exchanges": [{"name": name} | shared for name in (exchange, f"{exchange}.dead")],
    }


def _tags(rights: Rights) -> list[str]:
    return ["monitoring"] if rights.login == CLIENT else []  # for the doctor, which queries the management API


def _user(login: str, *tags: str) -> dict[str, Any]:
    placeholder = re.sub(r"\W", "_", login).upper()
    return {"name": login, "password": f"@{placeholder}_PASSWORD@", "tags": list(tags)}


def _permission(rights: Rights, vhost: str) -> dict[str, str]:
    facts = {right: _pattern(getattr(rights, right)) for right in ("configure", "write", "read")}
    return {"vhost": vhost, "user": rights.login, **facts}


def _topic_permissions(rights: Rights, vhost: str) -> Iterator[dict[str, str]]:
    for exchange, keys in rights.topics.items():
        facts = {"write": _pattern(keys.write), "read": _pattern(keys.read)}
        yield {"vhost": vhost, "exchange": exchange, "user": rights.login, **facts}


def _pattern(names: Sequence[str]) -> str:
    """Return the regular expression that matches these names alone."""
    escaped = (name.replace(".", "[.]").replace("[.]*", "[.].+") for name in names)
    return f"^({'|'.join(escaped)})$" if names else "^$"
