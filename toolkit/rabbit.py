"""The RabbitMQ transport: the only place that knows FastStream; AMQP in, wire messages out, and back.

A delivery is acknowledged after its commit and never before; a publish is done at the broker's confirm.
Publishing and consuming have a connection each, since a memory alarm blocks the one that publishes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import aio_pika
import structlog
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractIncomingMessage,
    AbstractRobustChannel,
    AbstractRobustConnection,
    AbstractRobustExchange,
    AbstractRobustQueue,
)
from aio_pika.exceptions import ChannelInvalidStateError, ChannelNotFoundEntity, PublishError
from aiormq.abc import DeliveredMessage
from faststream import AckPolicy
from faststream.rabbit import Channel, ExchangeType, QueueType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.rabbit.message import RabbitMessage
from faststream.rabbit.prometheus import RabbitPrometheusMiddleware
from pamqp.commands import Basic
from prometheus_client import REGISTRY
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from toolkit.amqp_acks import AWAY, Acks, quietly
from toolkit.amqp_consumer import Consumer
from toolkit.amqp_properties import tolerate_malformed_properties
from toolkit.amqp_writes import join_writes
from toolkit.dead_letters import DeadLetter
from toolkit.envelope import CONTROL_EVENTS, WireMessage
from toolkit.errors import UnreachableError, UnroutableError
from toolkit.events import routing_key
from toolkit.host import queue_name
from toolkit.ids import new_id
from toolkit.inbox import Inbox
from toolkit.service import Service
from toolkit.settings import Settings

log = structlog.get_logger("toolkit")

tolerate_malformed_properties()

#: The client gives a silent connection up after three beats and a second each, so that half a minute suffices.
_HEARTBEAT = 6
#: Seconds for which a connection, or an answer upon one, is awaited; and before the next one is tried.
_CONNECT_TIMEOUT, _RECONNECT_INTERVAL = 5, 1
#: A confirm is awaited for this share of the relay's lease, so that a row is in flight once.
_SHARE_OF_LEASE = 0.8
#: How often a message that kills its consumer is delivered before the broker gives it up.
_DELIVERY_LIMIT = 20
#: What lies in a dead-letter queue is never given up: without a number RabbitMQ 4 drops it after twenty deliveries.
_ENDLESS = 1_000_000_000
#: How many dead letters of the broker's are on their way into the table at once.
_DEAD_PREFETCH = 20
#: What the client says where the broker doesn't let us in. A Close while the connection opens is its no to the virtual
#: host, and the client drops the reason.
_NOES = ("ACCESS_REFUSED", "got <Connection.Close")
_CURE = "mend the login, its rights, or the virtual host in SAGA_BROKER_URL"


class RabbitPublisher:
    """The way out to one exchange."""

    def __init__(self, settings: Settings) -> None:
        self._exchange = _exchange(settings)
        self._patience = settings.relay_lease.total_seconds() * _SHARE_OF_LEASE
        # The default channel publishes only: a failed publish closes its channel, and consumers with it.
        channel = Channel(publisher_confirms=True, on_return_raises=True)
        self._broker = _broker(settings, default_channel=channel)
        self._connection: AbstractRobustConnection | None = None
        self._channel: AbstractChannel | None = None

    async def __aenter__(self) -> Self:
        """Connect, once, and make sure of the exchange.

        Raises:
            UnreachableError: the broker does not answer or does not let us in.
        """
        try:
            await self.connect()
        except AWAY as error:
            await self.close()
            raise as_unreachable(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self.close()

    async def connect(self) -> None:
        """Connect and declare the exchange."""
        self._connection = await self._broker.connect()
        self._channel = (await self._broker.declare_exchange(self._exchange)).channel

    async def close(self) -> None:
        """Disconnect."""
        await self._broker.stop()

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands at this moment."""
        return _stands(self._connection)

    def _open_channel(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            raise ChannelInvalidStateError("the channel is closed")
        return self._channel

    async def publish(self, message: WireMessage, *, destination: str | None = None) -> None:
        """Send a persistent, mandatory message and wait for the confirm.

        Raises:
            UnroutableError: no queue is bound to its routing key.
            UnreachableError: no confirm came; whether the message arrived is unknown.
        """
        try:
            async with asyncio.timeout(self._patience):
                # Past FastStream's and aio-pika's ways, which end each message's write before the next one's begins.
                channel = join_writes(await self._open_channel().get_underlay_channel())
                await channel.basic_publish(
                    message.body,
                    exchange="" if destination else self._exchange.name,
                    routing_key=destination or message.routing_key,
                    properties=_properties(message),
                    mandatory=True,
                    wait=False,
                )
        except PublishError as error:
            raise UnroutableError(f"no queue is bound to {destination or message.routing_key}") from error
        except AWAY as error:
            raise UnreachableError(f"the broker did not confirm {message.message_id}: {_word(error)}") from error


class RabbitConsumer:
    """The way into one service: its queue, its bindings, and its consumer.

    A second consumer empties the broker's dead-letter queue: `bury` commits what lies there to the service's own table.
    """

    def __init__(
        self, service: Service, settings: Settings, inbox: Inbox, *, bury: Callable[[DeadLetter], Awaitable[None]]
    ) -> None:
        self._service = service
        self._exchange = _exchange(settings)
        self._name = queue_name(settings, service.name)
        self._inbox = inbox
        self._bury_letter = bury
        self._acks = Acks()
        # FastStream's own metrics: of its subscriber, which is that of the dead letters alone.
        counted = RabbitPrometheusMiddleware(registry=REGISTRY, app_name=service.name)
        self._broker = _broker(settings, default_channel=Channel(), middlewares=[counted])
        self._dead = RabbitExchange(dead_letter_exchange(settings), type=ExchangeType.DIRECT, durable=True)
        self._queue, self._dead_queue = declared_queues(settings, service.name)
        self._prefetch = settings.prefetch
        self._dead_subscriber = self._broker.subscriber(
            self._dead_queue,
            channel=Channel(prefetch_count=_DEAD_PREFETCH),
            ack_policy=AckPolicy.MANUAL,
            decoder=_undecoded,
        )
        self._dead_subscriber(self._bury)
        self._redeclare_every = settings.redeclare_every.total_seconds()
        self._connection: AbstractRobustConnection | None = None
        self._declaring: AbstractRobustChannel | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._consumer: Consumer | None = None
        self._in_hand: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        """Declare what the service needs on the broker, begin to consume, and see that it stays declared."""
        self._connection = await self._broker.connect()
        if self._declaring is None:
            self._declaring = await self._connection.channel()
        await self._declare(self._declaring)
        await self._broker.start()
        if self._consumer is None:
            self._consumer = await self._prepared(self._connection)
        await self._consumer.consume()
        self._keeping = asyncio.create_task(self._keep(self._declaring, self._consumer))

    async def stop_taking(self) -> None:
        """Take nothing new, and wait for what is under way."""
        if self._keeping:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        if self._consumer:
            await self._consumer.cancel()
        await self._dead_subscriber.stop()
        while self._in_hand:
            await asyncio.wait(self._in_hand)
        await self._acks.finish()

    async def close(self) -> None:
        """Disconnect; what is not acknowledged is delivered again."""
        await self._broker.stop()

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands at this moment, with all declared that the service hears by."""
        return self._keeping is not None and _stands(self._connection)

    async def _keep(self, channel: AbstractRobustChannel, consumer: Consumer) -> None:
        """Declare all of it again and again: nobody else misses a binding that was deleted behind its back."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._redeclare_every):
                    await consumer.ended.wait()
            consumer.ended.clear()
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    await self._declare(channel)
                    await consumer.consume()
            except asyncio.CancelledError:
                # aio-pika ends a call on a dying connection this way though nobody cancelled.
                if (task := asyncio.current_task()) and task.cancelling():
                    raise
            except Exception as error:  # noqa: BLE001 -- whatever the broker's client raises, the next time may be well
                log.warning("queue and bindings could not be declared again", queue=self._name, error=_word(error))

    async def _declare(self, channel: AbstractRobustChannel) -> None:
        """Declare the queue, its bindings and its dead letters.

        By hand: FastStream declares a queue once only, and consumes it on the channel that declared it first, where
        no prefetch is set.
        """
        dead_exchange = await _declare_exchange(channel, self._dead)
        await (await _declare_queue(channel, self._dead_queue)).bind(dead_exchange, routing_key=self._name)
        exchange = await _declare_exchange(channel, self._exchange)
        queue = await _declare_queue(channel, self._queue)
        for event in sorted((*self._service.heard(), *CONTROL_EVENTS), key=routing_key):
            await queue.bind(exchange, routing_key=routing_key(event))

    async def _prepared(self, connection: AbstractRobustConnection) -> Consumer:
        """Return the service's consumer, on a channel of its own."""
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=self._prefetch)
        await _declare_queue(channel, self._queue, robust=True)  # it is there before it is consumed again
        return Consumer(channel, self._name, self._handle)

    async def _handle(self, raw: DeliveredMessage) -> None:
        """Have a message executed, and settled after the commit."""
        try:
            settled = self._inbox.take(_wire(raw.body, raw.routing_key, raw.header.properties))
        except Exception as error:  # noqa: BLE001 -- as of a commit that failed
            await self._give_back(raw, error)
        else:
            self._in_hand.add(settled)
            settled.add_done_callback(partial(self._settle, raw))

    def _settle(self, raw: DeliveredMessage, settled: asyncio.Future[None]) -> None:
        self._in_hand.discard(settled)
        if error := settled.exception():
            giving_back = asyncio.create_task(self._give_back(raw, error))
            self._in_hand.add(giving_back)
            giving_back.add_done_callback(self._in_hand.discard)
        else:
            self._acks.acknowledge(raw)

    async def _give_back(self, raw: DeliveredMessage, error: BaseException) -> None:
        """Have the broker deliver a message again; its delivery limit bounds how often."""
        message_id = raw.header.properties.message_id
        log.error("message given back to the broker", error=_word(error), message_id=message_id)
        await self._acks.give_back(raw)

    async def _bury(self, message: RabbitMessage) -> None:
        """Put what the broker gave up into the service's table, and acknowledge it after the commit."""
        raw = message.raw_message
        try:
            await self._bury_letter(_given_up(raw, self._service.name, self._name))
        except Exception as error:  # noqa: BLE001 -- it stays with the broker, unacknowledged: given back, it would come at once again
            log.error("dead letter could not be kept; it stays with the broker", error=_word(error))
        else:
            await quietly(raw.ack())


def dead_letter_exchange(settings: Settings) -> str:
    """Return the name of the exchange that what was given up goes through."""
    return f"{settings.exchange}.dead"


def declared_queues(settings: Settings, service: str) -> tuple[RabbitQueue, RabbitQueue]:
    """Return a service's queue and its dead-letter queue, as it declares them."""
    name = queue_name(settings, service)
    return _queue(name, dead_letter_exchange=dead_letter_exchange(settings)), _dead_queue(name)


async def queue_depths(settings: Settings, services: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return how many messages wait in each service's queue, and in its dead-letter queue; 0 where there is no queue.

    Raises:
        UnreachableError: the broker does not answer or does not let us in.
    """
    try:
        connection = await aio_pika.connect(_with_heartbeat(settings.broker_url), timeout=_CONNECT_TIMEOUT)
        async with connection:
            names = {service: queue_name(settings, service) for service in services}
            return {
                service: (await _depth(connection, name), await _depth(connection, f"{name}.dead"))
                for service, name in names.items()
            }
    except AWAY as error:
        raise as_unreachable(error) from error


async def _depth(connection: AbstractConnection, name: str) -> int:
    # A channel of its own: asking for a queue that is not there closes it.
    channel = await connection.channel()
    try:
        queue = await channel.declare_queue(name, passive=True)
        return queue.declaration_result.message_count or 0
    except ChannelNotFoundEntity:
        return 0
    finally:
        await channel.close()


async def connect_patiently(connect: Any, service: str) -> None:
    """Await `connect()` again and again while the broker is away."""
    wait = wait_exponential_jitter(multiplier=0.1, max=2)

    def say(state: Any) -> None:
        error = state.outcome.exception()
        if _refuses(error):  # it may be that somebody mends it, but only somebody can
            log.error("the broker refuses us", service=service, error=_word(error), cure=_CURE)
        else:
            log.warning("waiting for the broker", service=service, error=_word(error))

    async for attempt in AsyncRetrying(wait=wait, retry=retry_if_exception_type(AWAY), before_sleep=say):
        with attempt:
            await connect()


async def _undecoded(message: RabbitMessage) -> RabbitMessage:
    # The vocabulary reads the bytes; a decoder that fails would take the verdict out of our hands.
    return message


def _properties(message: WireMessage) -> Basic.Properties:
    return Basic.Properties(
        message_id=message.message_id,
        correlation_id=message.correlation_id,
        message_type=message.type,
        timestamp=message.timestamp,
        headers=dict(message.headers),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


def _wire(body: bytes, routing_key: str | None, properties: Basic.Properties) -> WireMessage:
    timestamp = properties.timestamp
    return WireMessage(
        body=body,
        routing_key=routing_key or "",
        message_id=properties.message_id,
        correlation_id=properties.correlation_id,
        type=properties.message_type,
        timestamp=timestamp.replace(tzinfo=UTC) if timestamp and timestamp.tzinfo is None else timestamp,
        headers=_headers(properties.headers or {}),
    )


def _given_up(raw: AbstractIncomingMessage, service: str, queue: str) -> DeadLetter:
    """Return a message of the dead-letter queue as a letter, with the reason that the broker wrote on it."""
    wire = _wire(raw.body, raw.routing_key, raw.properties)
    death = _death(wire.headers)
    word = str(death.get("reason") or "given up by the broker").replace("_", " ")
    told = f"it gave it up in {death.get('queue')} at {death.get('time')}" if death else "it does not say why"
    return DeadLetter(
        id=new_id(),
        service=service,
        reason=word,
        error=f"the broker put the message into {queue}.dead: {told}",
        message=replace(wire, routing_key=_first_key(death) or wire.routing_key),
        at=datetime.now(UTC),
    )


def _death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the broker says of the latest time that it gave the message up; anybody may have written there."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    return latest if isinstance(latest, dict) else {}


def _first_key(death: Mapping[str, Any]) -> str | None:
    keys = death.get("routing-keys")
    return str(keys[0]) if isinstance(keys, list) and keys else None


def _headers(headers: Mapping[str, Any]) -> dict[str, object]:
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value for name, value in headers.items()
    }


def _broker(
    settings: Settings, *, default_channel: Channel, middlewares: Sequence[RabbitPrometheusMiddleware] = ()
) -> RabbitBroker:
    return RabbitBroker(
        _with_heartbeat(settings.broker_url),
        default_channel=default_channel,
        middlewares=middlewares,
        apply_types=False,  # the bytes are validated once, by the vocabulary
        logger=None,  # the toolkit logs what was committed, not what was received
        graceful_timeout=5,
        timeout=_CONNECT_TIMEOUT,
        reconnect_interval=_RECONNECT_INTERVAL,
    )


def _with_heartbeat(url: str) -> str:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    return urlunsplit(parts._replace(query=urlencode({"heartbeat": str(_HEARTBEAT)} | query)))


def _exchange(settings: Settings) -> RabbitExchange:
    return RabbitExchange(settings.exchange, type=ExchangeType.TOPIC, durable=True)


def _queue(name: str, *, dead_letter_exchange: str) -> RabbitQueue:
    """Return the service's queue: replicated, and losing nothing, not even what the delivery limit turns away."""
    return RabbitQueue(
        name,
        queue_type=QueueType.QUORUM,
        durable=True,
        arguments={
            "x-delivery-limit": _DELIVERY_LIMIT,
            "x-dead-letter-exchange": dead_letter_exchange,
            "x-dead-letter-routing-key": name,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def _dead_queue(name: str) -> RabbitQueue:
    """Return the queue under the dead letters; it has to bear any number of deliveries that a crash cut off."""
    return RabbitQueue(
        f"{name}.dead", queue_type=QueueType.QUORUM, durable=True, arguments={"x-delivery-limit": _ENDLESS}
    )


async def _declare_exchange(channel: AbstractRobustChannel, exchange: RabbitExchange) -> AbstractRobustExchange:
    # Not "robust": the client would remember each of these calls, and repeat them all when it connects again.
    kind = exchange.type.value
    return await channel.declare_exchange(exchange.name, type=kind, durable=exchange.durable, robust=False)


async def _declare_queue(
    channel: AbstractRobustChannel, queue: RabbitQueue, *, robust: bool = False
) -> AbstractRobustQueue:
    return await channel.declare_queue(queue.name, durable=queue.durable, arguments=queue.arguments, robust=robust)


def as_unreachable(error: BaseException) -> UnreachableError:
    """Return the broker's no, or its silence, as what it means to whoever set SAGA_BROKER_URL."""
    if _refuses(error):
        return UnreachableError(f"the broker refuses us at SAGA_BROKER_URL: {_word(error)}; {_CURE}")
    return UnreachableError(f"the broker does not answer at SAGA_BROKER_URL: {_word(error)}")


def _refuses(error: BaseException | None) -> bool:
    """Whether the broker is there, and doesn't let us in: a wrong login, or a virtual host that is closed to it."""
    return any(sign in str(error) for sign in _NOES)


def _stands(connection: AbstractRobustConnection | None) -> bool:
    return connection is not None and not connection.is_closed and connection.connected.is_set()


def _word(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"
