"""What a service has on the broker: the shared exchanges, its queue, and its dead-letter queue."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractQueue, AbstractRobustChannel
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.exceptions import ChannelAccessRefused
from faststream.rabbit import ExchangeType, QueueType, RabbitExchange, RabbitQueue

from toolkit.configuration.settings import Settings, queue_name
from toolkit.declaration.events import routing_key
from toolkit.declaration.service import Service
from toolkit.messaging.addresses import consumed_keys
from toolkit.messaging.envelope import CONTROL_EVENTS
from toolkit.transport.rabbitmq.acknowledgements import AWAY
from toolkit.transport.rabbitmq.connection import CONNECT_TIMEOUT, as_unreachable, with_heartbeat

log = structlog.get_logger("toolkit")

#: The sign of a dead-letter exchange of a former release, in the broker's error.
_FORMER_TYPE = "current is 'direct'"
#: The broker counts each end of a delivery without an acknowledgement, outages and deployments included. So the limit
#: is never reached; without one RabbitMQ 4 would dead-letter a message after twenty deliveries.
_ENDLESS = 1_000_000_000


def event_exchange(settings: Settings) -> RabbitExchange:
    """Return the exchange that all events go through."""
    return RabbitExchange(settings.exchange, type=ExchangeType.TOPIC, durable=True)


def dead_letter_exchange(settings: Settings) -> RabbitExchange:
    """Return the exchange for what the broker dead-letters; a topic exchange, so that rights apply to its keys."""
    return RabbitExchange(f"{settings.exchange}.dead", type=ExchangeType.TOPIC, durable=True)


def own_exchange(settings: Settings, service: str) -> RabbitExchange:
    """Return the exchange through which a service sends to itself; no other login may write to it.

    It has the queue's name, and routes every key to it: so a retry keeps the routing key of its event.
    """
    return RabbitExchange(queue_name(settings, service), type=ExchangeType.FANOUT, durable=True)


def declared_queues(settings: Settings, service: str) -> tuple[RabbitQueue, RabbitQueue]:
    """Return a service's queue and its dead-letter queue, as it declares them."""
    name = queue_name(settings, service)
    return _queue(name, dead_letter_exchange=dead_letter_exchange(settings).name), _dead_queue(name)


def _queue(name: str, *, dead_letter_exchange: str) -> RabbitQueue:
    """Return a service's queue: replicated, and without loss, expired messages included."""
    return RabbitQueue(
        name,
        queue_type=QueueType.QUORUM,
        durable=True,
        arguments={
            "x-delivery-limit": _ENDLESS,
            "x-dead-letter-exchange": dead_letter_exchange,
            "x-dead-letter-routing-key": name,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def _dead_queue(name: str) -> RabbitQueue:
    """Return the dead-letter queue; it has no delivery limit, since crashes may interrupt any number of deliveries."""
    return RabbitQueue(
        f"{name}.dead", queue_type=QueueType.QUORUM, durable=True, arguments={"x-delivery-limit": _ENDLESS}
    )


def bound_keys(service: Service, settings: Settings) -> list[str]:
    """Return the routing keys that a service's queue is bound to."""
    return sorted(consumed_keys(service, settings.asked_by) | set(map(routing_key, CONTROL_EVENTS)))


async def declare(
    channel: AbstractRobustChannel, settings: Settings, service: Service, *, given: Collection[str] = ()
) -> None:
    """Declare a service's queue, its bindings and its dead-letter queue; `given` exchanges have to exist.

    Without FastStream: it declares a queue once only, and consumes it on the channel that declared it first, where
    no prefetch is set.
    """
    queue, dead_queue = declared_queues(settings, service.name)
    dead_exchange = await _declare_exchange(channel, dead_letter_exchange(settings), given)
    await (await declare_queue(channel, dead_queue)).bind(dead_exchange, routing_key=queue.name)
    exchange = await _declare_exchange(channel, event_exchange(settings), given)
    declared = await declare_queue(channel, queue)
    await declared.bind(await _declare_exchange(channel, own_exchange(settings, service.name)), routing_key="")
    for key in bound_keys(service, settings):
        await declared.bind(exchange, routing_key=key)


def shared_exchanges(settings: Settings) -> list[RabbitExchange]:
    """Return the exchanges that belong to no service."""
    return [event_exchange(settings), dead_letter_exchange(settings)]


def as_given(exchange: RabbitExchange) -> RabbitExchange:
    """Return an exchange that has to exist, and is not declared."""
    return RabbitExchange(exchange.name, type=exchange.type, durable=exchange.durable, declare=False, robust=False)


async def given_exchanges(connection: AbstractConnection, exchanges: Iterable[RabbitExchange]) -> frozenset[str]:
    """Declare the shared exchanges, and return those that this login may not declare.

    A login that may configure an exchange may also recreate it with another type, on which the broker checks no key:
    so no service's login needs that right.
    """
    given = set()
    for exchange in exchanges:
        try:
            async with connection.channel() as channel:
                await _declare_exchange(channel, exchange)
        except ChannelAccessRefused as refusal:
            if not await _is_there(connection, exchange):
                raise refusal from None
            given.add(exchange.name)
        except ChannelPreconditionFailed as error:
            if not exchange.name.endswith(".dead") or _FORMER_TYPE not in str(error):
                raise
            given.add(exchange.name)  # it works, but the broker checks no key on it
            cure = f"rabbitmqadmin delete exchange name={exchange.name}: services declare it again when they start"
            log.warning("the dead-letter exchange is that of a former release", exchange=exchange.name, cure=cure)
    return frozenset(given)


async def _is_there(connection: AbstractConnection, exchange: RabbitExchange) -> bool:
    try:
        async with connection.channel() as channel:
            await _declare_exchange(channel, exchange, given=(exchange.name,))
    except ChannelNotFoundEntity:
        return False
    return True


async def unbind(connection: AbstractConnection, settings: Settings, service: str, keys: Collection[str]) -> bool:
    """Unbind a former release's keys; return whether this login has the right to read them, which that takes."""
    try:
        async with connection.channel() as channel:
            queue = await channel.get_queue(queue_name(settings, service), ensure=False)
            for key in keys:
                await queue.unbind(settings.exchange, routing_key=key)
    except ChannelAccessRefused:
        return False
    return True


async def declare_queue(channel: AbstractRobustChannel, queue: RabbitQueue, *, robust: bool = False) -> AbstractQueue:
    """Declare a queue; a `robust` one is declared again whenever the channel is reopened."""
    return await channel.declare_queue(queue.name, durable=queue.durable, arguments=queue.arguments, robust=robust)


async def _declare_exchange(
    channel: AbstractChannel, exchange: RabbitExchange, given: Collection[str] = ()
) -> AbstractExchange:
    # Not "robust": the client would record each of these calls, and repeat them all on each reconnect.
    facts: Any = {"robust": False} if isinstance(channel, AbstractRobustChannel) else {}
    facts |= {"passive": True} if exchange.name in given else {"type": exchange.type.value, "durable": exchange.durable}
    return await channel.declare_exchange(exchange.name, **facts)


async def queue_depths(settings: Settings, services: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return how many messages are in each service's queue, and in its dead-letter queue; 0 where the queue is missing.

    Raises:
        UnreachableError: the broker does not answer or rejects the login.
    """
    try:
        connection = await aio_pika.connect(with_heartbeat(settings.broker_url), timeout=CONNECT_TIMEOUT)
        async with connection:
            queues = {service: declared_queues(settings, service) for service in services}
            return {
                service: (await _depth(connection, queue.name), await _depth(connection, dead_queue.name))
                for service, (queue, dead_queue) in queues.items()
            }
    except AWAY as error:
        raise as_unreachable(error) from error


async def _depth(connection: AbstractConnection, name: str) -> int:
    # A channel of its own: a passive declaration of a missing queue closes it.
    channel = await connection.channel()
    try:
        queue = await channel.declare_queue(name, passive=True)
        return queue.declaration_result.message_count or 0
    except ChannelNotFoundEntity:
        return 0
    finally:
        await channel.close()
