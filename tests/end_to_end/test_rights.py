"""Each login has the rights of the table on the broker, and no others: every cell, on a real RabbitMQ."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator

import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from tests.docs.pages import DOCS, rows, section
from tests.end_to_end.guarded import (
    CONTRACTS,
    LOGINS,
    PROJECT,
    Guarded,
    binding,
    guarded_broker,
    is_allowed,
    publishing,
)
from tests.servers import docker_is_there
from toolkit import Settings
from toolkit.declaration.events import routing_key
from toolkit.messaging.envelope import CONTROL_EVENTS
from toolkit.messaging.rights import as_definitions, as_rows, rights_of
from toolkit.transport.rabbitmq.topology import declared_queues, unbind

SERVICES = [contract.service for contract in CONTRACTS]
RIGHTS = rights_of(CONTRACTS, "saga", {})
TABLE = as_rows(RIGHTS)
KEYS = sorted(
    {event.routing_key for contract in CONTRACTS for event in contract.events.values()}
    | {routing_key(event) for event in CONTROL_EVENTS}
    | {"saga.Probe", "saga.Anything", "#", "order.#", *(f"saga.{service}" for service in SERVICES)}
)
#: Exchanges that a login may try to write to or read from.
EXCHANGES = ("saga", "saga.dead", *(f"saga.{service}" for service in SERVICES), "amq.topic", "amq.fanout")


@pytest.fixture(scope="module")
def broker() -> Iterator[Guarded]:
    if not docker_is_there():
        pytest.skip("no Docker engine answers on this machine, and a shared broker's rights are not changed")
    with guarded_broker() as broker:
        yield broker


@pytest.fixture
async def connections(broker: Guarded) -> AsyncIterator[dict[str, AbstractConnection]]:
    """A connection of each login; each service has declared its queues and its exchange."""
    opened = {login: await broker.connect(login) for login in LOGINS}
    for service in SERVICES:
        async with opened[service].channel() as channel:
            for queue in declared_queues(Settings(), service):
                await channel.declare_queue(queue.name, durable=True, arguments=queue.arguments)
            await channel.declare_exchange(f"saga.{service}", "fanout", durable=True)
    yield opened
    for each in opened.values():
        await each.close()


def may(login: str, right: str, name: str, key: str) -> bool:
    """Whether the table has this cell."""
    cells = [row for row in TABLE if (row["login"], row["object"]) == (login, name) and right in row["right"]]
    return any(row["key"] in ("", key) or _is_of_owner(key, row["key"]) for row in cells)


def _is_of_owner(key: str, pattern: str) -> bool:
    return pattern.endswith(".*") and key.startswith(pattern[:-1])


@pytest.mark.parametrize("login", [each for each in LOGINS if each != "admin"])
async def test_a_login_writes_the_tables_keys_only(connections: dict[str, AbstractConnection], login: str) -> None:
    cells = [(exchange, key) for exchange in EXCHANGES for key in KEYS if "#" not in key]
    allowed = {cell for cell in cells if await is_allowed(connections[login], publishing(*cell))}

    assert allowed == {cell for cell in cells if may(login, "write", *cell)}
    assert allowed, "a table that allows nothing proves nothing"


@pytest.mark.parametrize("login", [each for each in LOGINS if each != "admin"])
async def test_a_login_reads_the_tables_keys_only(connections: dict[str, AbstractConnection], login: str) -> None:
    own = login if login in SERVICES else "payment"
    cells = [(exchange, key) for exchange in EXCHANGES for key in KEYS]
    allowed = {cell for cell in cells if await is_allowed(connections[login], binding(f"saga.{own}", *cell))}

    assert allowed == {cell for cell in cells if may(login, "read", *cell)}
    assert bool(allowed) is (login in SERVICES)


@pytest.mark.parametrize("login", [each for each in LOGINS if each != "admin"])
async def test_a_login_has_no_other_rights(connections: dict[str, AbstractConnection], login: str) -> None:
    """No queue by its name, no queue of another service, no declaration of the shared exchanges."""
    own = {f"saga.{login}", f"saga.{login}.dead"}
    queues = [queue.name for service in SERVICES for queue in declared_queues(Settings(), service)]

    async def allows(act: object) -> bool:
        return await is_allowed(connections[login], act)

    assert not any([await allows(publishing("", queue)) for queue in queues]), "the default exchange"
    assert {queue for queue in queues if await allows(_consuming(queue))} == own & set(queues)
    assert {queue for queue in queues if await allows(_purging(queue))} == own & set(queues)
    assert not any([await allows(_deleting(name)) for name in ("saga", "saga.dead")])
    assert not any([await allows(_declaring(name)) for name in ("saga", "saga.dead", "saga.other", "other")])


@pytest.mark.parametrize("header", ["CC", "BCC"])
async def test_a_second_routing_key_is_checked_too(connections: dict[str, AbstractConnection], header: str) -> None:
    act = publishing("saga", "payment.PaymentFailed", headers={header: ["order.OrderCreated"]})

    assert not await is_allowed(connections["payment"], act)


async def test_unbinding_needs_the_right_to_read(
    connections: dict[str, AbstractConnection],
) -> None:
    assert await unbind(connections["payment"], Settings(), "payment", ["inventory.InventoryReserved"])
    assert not await unbind(connections["payment"], Settings(), "payment", ["order.OrderCreated"])


def _consuming(queue: str) -> object:
    async def requeue(message: AbstractIncomingMessage) -> None:
        await message.reject(requeue=True)

    async def consume(channel: AbstractChannel) -> None:
        declared = await channel.get_queue(queue, ensure=False)
        await declared.cancel(await declared.consume(requeue))

    return consume


def _purging(queue: str) -> object:
    async def purge(channel: AbstractChannel) -> None:
        await (await channel.get_queue(queue, ensure=False)).purge()

    return purge


def _deleting(exchange: str) -> object:
    return lambda channel: channel.exchange_delete(exchange)


def _declaring(exchange: str) -> object:
    return lambda channel: channel.declare_exchange(exchange, "topic", durable=True)


def test_composes_rights_are_those_of_the_contracts() -> None:
    applied = json.loads((PROJECT / "deploy" / "rabbitmq" / "definitions.json").read_text())

    cure = "saga topology --permissions -o json > deploy/rabbitmq/definitions.json"
    assert applied == as_definitions(RIGHTS, "saga", vhost="/"), f"regenerate it: {cure}"


def test_the_documented_rights_are_the_contracts() -> None:
    page = DOCS / "reference" / "rights.md"

    documented = [
        [cell.strip("`") for cell in cells] for cells in rows(section(page, "The order saga")) if len(cells) == 4
    ]

    assert documented == [[row[name] for name in ("login", "object", "key", "right")] for row in TABLE]


def test_compose_names_each_owners_login() -> None:
    (value,) = set(re.findall(r"SAGA_LOGINS: &?\w* ?'(.+)'", (PROJECT / "compose.yaml").read_text()))

    logins = json.loads(value)

    assert Settings(logins=logins).logins["saga"] == ("saga", *SERVICES)
    assert {owner: each for owner, each in logins.items() if owner != "saga"} == {name: [name] for name in SERVICES}
