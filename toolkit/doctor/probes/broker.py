"""Asking the broker over AMQP: what is there, and in what it differs from what the services declare.

Nothing is made: whatever is declared with its arguments was found to be there just before.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from faststream.rabbit import RabbitQueue

from toolkit.configuration.settings import Settings
from toolkit.doctor.facts import BrokerFacts, Difference, QueueFacts
from toolkit.errors import describe
from toolkit.transport.rabbitmq.acknowledgements import AWAY
from toolkit.transport.rabbitmq.connection import as_unreachable
from toolkit.transport.rabbitmq.topology import dead_letter_exchange, declared_queues
from toolkit.urls import is_loopback

_TIMEOUT = 5
#: What one queue can differ in at most; each is one question.
_MOST_DIFFERENCES = 20
_INEQUIVALENT = re.compile(r"inequivalent arg '([^']+)' for .*?: received (.+?) but current is (none|.*?'.*?')")
_VALUE = re.compile(r"'(.*)'(?: of type '(.*)')?$")


async def ask_broker(settings: Settings, services: Iterable[str]) -> BrokerFacts:
    """Return what the broker tells of itself, and of these services' queues."""
    names = list(services)
    parts = urlsplit(settings.broker_url)
    host, port = parts.hostname or "127.0.0.1", parts.port or (5671 if parts.scheme == "amqps" else 5672)
    facts = BrokerFacts(
        address=f"{host}:{port}",
        login=settings.login,
        vhost=settings.vhost,
        is_local=is_loopback(host),
    )
    try:
        async with asyncio.timeout(_TIMEOUT):
            connection = await aio_pika.connect(settings.broker_url, timeout=_TIMEOUT)
    except AWAY as error:
        return replace(facts, fault=str(as_unreachable(error)))
    async with connection:
        return await _questioned(connection, facts, settings, names)


async def _questioned(
    connection: AbstractConnection, facts: BrokerFacts, settings: Settings, names: list[str]
) -> BrokerFacts:
    queues = [
        await _ask_queue(connection, queue, service=name, is_dead=is_dead)
        for name in names
        for is_dead, queue in enumerate(declared_queues(settings, name))
    ]
    properties = cast("Any", connection).transport.connection.server_properties
    return replace(
        facts,
        version=str(properties.get("version", "")),
        cluster=str(properties.get("cluster_name", "")),
        exchange_fault=await _fault_of_exchange(connection, settings.exchange, "topic"),
        dead_exchange_fault=await _fault_of_exchange(connection, dead_letter_exchange(settings).name, "topic"),
        queues=tuple(queues),
    )


async def _fault_of_exchange(connection: AbstractConnection, name: str, kind: str) -> str | None:
    try:
        async with _channel(connection) as channel:
            await channel.declare_exchange(name, passive=True)
    except ChannelNotFoundEntity:
        return f"there is no exchange {name}"
    except AWAY as error:
        return describe(error)
    try:
        async with _channel(connection) as channel:
            await channel.declare_exchange(name, type=kind, durable=True)
    except ChannelPreconditionFailed as error:
        found = _INEQUIVALENT.search(str(error))
        return f"the exchange {name} has {found[1]} {found[3]}, not {found[2]}" if found else describe(error)
    except AWAY:
        return None  # this login may not declare it; that it is there is known
    return None


async def _ask_queue(connection: AbstractConnection, queue: RabbitQueue, *, service: str, is_dead: int) -> QueueFacts:
    facts = QueueFacts(service=service, name=queue.name, is_there=True, is_dead=bool(is_dead))
    try:
        async with _channel(connection) as channel:
            there = await channel.declare_queue(queue.name, passive=True)
            consumers = there.declaration_result.consumer_count or 0
    except ChannelNotFoundEntity:
        return replace(facts, is_there=False)
    except AWAY as error:
        return replace(facts, fault=describe(error))
    try:
        return replace(facts, consumers=consumers, differences=await _differences(connection, queue))
    except AWAY as error:
        return replace(facts, consumers=consumers, fault=describe(error))


async def _differences(connection: AbstractConnection, queue: RabbitQueue) -> tuple[Difference, ...]:
    """Declare the queue as its service does; at each no, take over what it has, and ask for the next."""
    wanted: dict[str, Any] = dict(queue.arguments or {})
    own: dict[str, Any] = {"durable": True, "auto_delete": False}
    found: list[Difference] = []
    while True:
        try:
            async with _channel(connection) as channel:
                await channel.declare_queue(queue.name, arguments=dict(wanted), **own)
            return tuple(found)
        except ChannelPreconditionFailed as error:
            no = _INEQUIVALENT.search(str(error))
            if no is None or len(found) == _MOST_DIFFERENCES:
                raise
            argument, value = no[1], _value(no[3])
            before = (own if argument in own else wanted).get(argument)
            found.append(Difference(argument=argument, wanted=_text(before), found=_text(value)))
            if argument in own:
                own[argument] = value == "true"
            elif value is None:
                wanted.pop(argument, None)
            else:
                wanted[argument] = int(value) if isinstance(before, int) or _is_number(no[3]) else value


def filled_in(broker: BrokerFacts, settings: Settings) -> BrokerFacts:
    """Return the facts with what the management API told of queues and exchanges that this login may not declare."""
    told = broker.management.declared if broker.management else {}
    kinds = broker.management.kinds if broker.management else {}
    wanted = {queue.name: queue for each in broker.queues for queue in declared_queues(settings, each.service)}
    return replace(
        broker,
        exchange_fault=broker.exchange_fault or _other_kind(kinds, settings.exchange),
        dead_exchange_fault=broker.dead_exchange_fault or _other_kind(kinds, dead_letter_exchange(settings).name),
        queues=tuple(
            replace(each, differences=_compared(wanted[each.name], told[each.name]), fault=None)
            if each.differences is None and each.name in told
            else each
            for each in broker.queues
        ),
    )


def _other_kind(kinds: Mapping[str, str], name: str) -> str | None:
    kind = kinds.get(name, "topic")
    return f"the exchange {name} has type '{kind}', not 'topic'" if kind != "topic" else None


def _compared(queue: RabbitQueue, told: Mapping[str, object]) -> tuple[Difference, ...]:
    wanted = {"durable": True, "auto_delete": False} | dict(queue.arguments or {})
    return tuple(
        Difference(argument=name, wanted=_text(wanted.get(name)), found=_text(told.get(name)))
        for name in sorted(wanted.keys() | told.keys())
        if _text(wanted.get(name)) != _text(told.get(name))
    )


def _value(text: str) -> str | None:
    match = _VALUE.search(text)
    return match[1] if match else None


def _is_number(text: str) -> bool:
    match = _VALUE.search(text)
    return bool(match and match[2] and "int" in match[2]) or bool(match and match[2] in ("long", "short", "byte"))


def _text(value: object) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@asynccontextmanager
async def _channel(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    """Open a channel of its own: a no of the broker's closes it."""
    async with asyncio.timeout(_TIMEOUT):
        channel = await connection.channel()
        try:
            yield channel
        finally:
            with suppress(*AWAY):
                await channel.close()
