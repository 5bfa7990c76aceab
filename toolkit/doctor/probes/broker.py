"""Facts from the broker over AMQP: what exists, and how it differs from what the services declare.

No probe creates anything: it declares with arguments only what a passive declaration has just found.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from faststream.rabbit import RabbitQueue

from toolkit.configuration.settings import Settings
from toolkit.doctor.facts import BrokerFacts, Difference, ManagementFacts, QueueFacts
from toolkit.errors import describe
from toolkit.transport.rabbitmq.acknowledgements import AWAY
from toolkit.transport.rabbitmq.connection import as_unreachable
from toolkit.transport.rabbitmq.topology import dead_letter_exchange, declared_queues
from toolkit.urls import is_loopback

_TIMEOUT = 5
_INEQUIVALENT = re.compile(r"inequivalent arg '([^']+)' for .*?: received (.+?) but current is (none|.*?'.*?')")
_VALUE = re.compile(r"'(.*?)'")


async def ask_broker(settings: Settings, services: Iterable[str]) -> BrokerFacts:
    """Return the broker's facts, those of these services' queues included."""
    parts = urlsplit(settings.broker_url)
    host, port = parts.hostname or "127.0.0.1", parts.port or (5671 if parts.scheme == "amqps" else 5672)
    facts = BrokerFacts(
        address=f"{host}:{port}", login=settings.login, vhost=settings.vhost, is_local=is_loopback(host)
    )
    try:
        async with asyncio.timeout(_TIMEOUT):
            connection = await aio_pika.connect(settings.broker_url, timeout=_TIMEOUT)
    except AWAY as error:
        return replace(facts, fault=str(as_unreachable(error)))
    async with connection:
        properties = cast("Any", connection).transport.connection.server_properties
        faults = {name: await _fault_of_exchange(connection, name) for name in _exchanges(settings)}
        return replace(
            facts,
            version=str(properties.get("version", "")),
            cluster=str(properties.get("cluster_name", "")),
            exchange_faults={name: fault for name, fault in faults.items() if fault},
            queues=tuple([await each for name in services for each in _queues(connection, settings, name)]),
        )


def _exchanges(settings: Settings) -> tuple[str, str]:
    return settings.exchange, dead_letter_exchange(settings).name


async def _fault_of_exchange(connection: AbstractConnection, name: str) -> str | None:
    try:
        async with _channel(connection) as channel:
            await channel.declare_exchange(name, passive=True)
    except ChannelNotFoundEntity:
        return f"there is no exchange {name}"
    except AWAY as error:
        return describe(error)
    try:
        async with _channel(connection) as channel:
            await channel.declare_exchange(name, type="topic", durable=True)
    except ChannelPreconditionFailed as error:
        found = _INEQUIVALENT.search(str(error))
        return f"the exchange {name} has {found[1]} {found[3]}, not {found[2]}" if found else describe(error)
    except AWAY:
        return None  # this login may not declare it, and it exists
    return None


def _queues(
    connection: AbstractConnection, settings: Settings, service: str
) -> Iterator[Coroutine[Any, Any, QueueFacts]]:
    for is_dead, queue in enumerate(declared_queues(settings, service)):
        facts = QueueFacts(service=service, name=queue.name, exists=True, is_dead=bool(is_dead))
        yield _ask_queue(connection, queue, facts)


async def _ask_queue(connection: AbstractConnection, queue: RabbitQueue, facts: QueueFacts) -> QueueFacts:
    try:
        async with _channel(connection) as channel:
            found = await channel.declare_queue(queue.name, passive=True)
            facts = replace(facts, consumers=found.declaration_result.consumer_count or 0)
        async with _channel(connection) as channel:
            await channel.declare_queue(queue.name, durable=True, arguments=queue.arguments)
    except ChannelNotFoundEntity:
        return replace(facts, exists=False)
    except ChannelPreconditionFailed as error:
        if found_first := _INEQUIVALENT.search(str(error)):
            first = Difference(found_first[1], _value(found_first[2]), _value(found_first[3]))
            return replace(facts, differences=(first,))
        return replace(facts, fault=describe(error))
    except AWAY as error:
        return replace(facts, fault=describe(error))
    return replace(facts, differences=())


def _value(text: str) -> str | None:
    match = _VALUE.search(text)
    return match[1] if match else None


@asynccontextmanager
async def _channel(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    """Open a channel for one declaration: a refusal closes it."""
    async with asyncio.timeout(_TIMEOUT):
        channel = await connection.channel()
        try:
            yield channel
        finally:
            with suppress(*AWAY):
                await channel.close()


def with_management(broker: BrokerFacts, management: ManagementFacts, settings: Settings) -> BrokerFacts:
    """Return the facts with all differences of queues and exchanges that the management API knows.

    Over AMQP the broker names the first difference alone, and none to a login that may not declare.
    """
    other_kinds = {
        name: f"the exchange {name} has type '{kind}', not 'topic'"
        for name, kind in management.kinds.items()
        if kind != "topic"
    }
    wanted = {queue.name: queue for each in broker.queues for queue in declared_queues(settings, each.service)}
    queues = tuple(
        replace(each, differences=_compared(wanted[each.name], known.declared), fault=None)
        if (known := management.queues.get(each.name))
        else each
        for each in broker.queues
    )
    faults = other_kinds | dict(broker.exchange_faults)
    return replace(broker, management=management, exchange_faults=faults, queues=queues)


def _compared(queue: RabbitQueue, found: Mapping[str, object]) -> tuple[Difference, ...]:
    wanted = {"durable": True, "auto_delete": False} | dict(queue.arguments or {})
    pairs = {name: (_text(wanted.get(name)), _text(found.get(name))) for name in sorted(wanted.keys() | found.keys())}
    return tuple(Difference(name, wants, has) for name, (wants, has) in pairs.items() if wants != has)


def _text(value: object) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)
