"""The RabbitMQ transport: AMQP in, wire messages out, and back.

A delivery is acknowledged after its commit and never before; a publish is done at the broker's confirm.
Publishing and consuming have a connection each, since a memory alarm blocks the one that publishes.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

import structlog
from aio_pika.abc import AbstractChannel, AbstractRobustChannel, AbstractRobustConnection
from aio_pika.exceptions import ChannelInvalidStateError, PublishError
from aiormq.abc import DeliveredMessage
from faststream import AckPolicy
from faststream.rabbit import Channel
from faststream.rabbit.message import RabbitMessage
from faststream.rabbit.prometheus import RabbitPrometheusMiddleware
from prometheus_client import REGISTRY

from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Service
from toolkit.errors import EscapedError, UnreachableError, UnroutableError, describe
from toolkit.foreign_code.containment import contain
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence.known_bindings import Bindings
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.transport.rabbitmq.acknowledgements import AWAY, Acks, quietly
from toolkit.transport.rabbitmq.connection import CONNECT_TIMEOUT, as_error, broker_of, stands
from toolkit.transport.rabbitmq.consumer import Consumer
from toolkit.transport.rabbitmq.messages import given_up, properties_of, wire_of
from toolkit.transport.rabbitmq.refusals import refusal_of
from toolkit.transport.rabbitmq.topology import (
    as_given,
    bound_keys,
    declare,
    declare_queue,
    declared_queues,
    event_exchange,
    given_exchanges,
    shared_exchanges,
    unbind,
)
from toolkit.transport.rabbitmq.write_batching import join_writes

log = structlog.get_logger("toolkit")

#: A confirm is awaited for this share of the relay's lease, so that a row is in flight once.
_SHARE_OF_LEASE = 0.8
#: How many dead letters of the broker's are on their way into the table at once.
_DEAD_PREFETCH = 20
#: How long a message is kept that is given back, in seconds.
_MOMENT = 1.0


class RabbitPublisher:
    """The way out to one exchange."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exchange = event_exchange(settings)
        self._is_refused = False
        self._patience = settings.relay_lease.total_seconds() * _SHARE_OF_LEASE
        # The default channel publishes only: a failed publish closes its channel, and consumers with it.
        channel = Channel(publisher_confirms=True, on_return_raises=True)
        self._broker = broker_of(settings, default_channel=channel)
        self._connection: AbstractRobustConnection | None = None
        self._channel: AbstractChannel | None = None

    async def __aenter__(self) -> Self:
        """Connect, once, and make sure of the exchange.

        Raises:
            UnreachableError: the broker does not answer or does not let us in.
            BrokerRefusesError: the exchange is there, and is of another kind.
        """
        try:
            await self.connect()
        except AWAY as error:
            await self.close()
            raise as_error(error, self._settings) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self.close()

    async def connect(self) -> None:
        """Connect, and declare the exchange where this login may; else it has to be there."""
        self._connection = await self._broker.connect()
        await given_exchanges(self._connection, [self._exchange])
        self._channel = (await self._broker.declare_exchange(as_given(self._exchange))).channel

    async def close(self) -> None:
        """Disconnect."""
        await self._broker.stop()

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands at this moment, and the broker lets us publish."""
        return stands(self._connection) and not self._is_refused

    def _open_channel(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            raise ChannelInvalidStateError("the channel is closed")
        return self._channel

    async def publish(self, message: WireMessage, *, destination: str | None = None) -> None:
        """Send a persistent, mandatory message and wait for the confirm.

        `destination` is a service's queue, which its own exchange of the same name leads to, whatever the key.

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
                    exchange=destination or self._exchange.name,
                    routing_key=message.routing_key,
                    properties=properties_of(message, login=self._settings.login),
                    mandatory=True,
                    wait=False,
                )
        except PublishError as error:
            raise UnroutableError(f"no queue is bound to {destination or message.routing_key}") from error
        except AWAY as error:
            if refusal := refusal_of(error, self._settings):
                self._is_refused = True
                raise refusal from error
            raise UnreachableError(f"the broker did not confirm {message.message_id}: {describe(error)}") from error
        self._is_refused = False


class RabbitConsumer:
    """The way into one service: its queue, its bindings, and its consumer.

    A second consumer empties the broker's dead-letter queue into the service's own table.
    """

    def __init__(self, service: Service, settings: Settings, runtime: ServiceRuntime) -> None:
        self._service = service
        self._settings = settings
        self._queue, dead_queue = declared_queues(settings, service.name)
        self._runtime = runtime
        self._bindings = Bindings(runtime.database, renewed_every=settings.redeclare_every)
        self._acks = Acks()
        # FastStream's own metrics: of its subscriber, which is that of the dead letters alone.
        counted = RabbitPrometheusMiddleware(registry=REGISTRY, app_name=service.name)
        self._broker = broker_of(settings, default_channel=Channel(), middlewares=[counted])
        self._given: frozenset[str] = frozenset()
        self._bound_for_good: set[str] = set()
        self._dead_subscriber = self._broker.subscriber(
            dead_queue,
            channel=Channel(prefetch_count=_DEAD_PREFETCH),
            ack_policy=AckPolicy.MANUAL,
            decoder=_undecoded,
        )
        self._dead_subscriber(self._dead_letter)
        self._connection: AbstractRobustConnection | None = None
        self._declaring: AbstractRobustChannel | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._consumer: Consumer | None = None
        self._is_refused = False
        self._giving_way: asyncio.Task[None] | None = None
        self._in_hand: dict[asyncio.Future[None], DeliveredMessage] = {}

    async def start(self) -> None:
        """Declare what the service needs on the broker, begin to consume, and see that it stays declared."""
        self._connection = await self._broker.connect()
        if self._declaring is None:
            self._declaring = await self._connection.channel()
            self._given = await given_exchanges(self._connection, shared_exchanges(self._settings))
        await self._declare(self._declaring)
        await self._broker.start()
        if self._consumer is None:
            self._consumer = await self._prepared(self._connection)
        await self._consumer.consume()
        self._keeping = asyncio.create_task(
            contain("the loop keeper", self._keep(self._declaring, self._consumer)),
            name=f"keeper of {self._service.name}",
        )
        self._giving_way = asyncio.create_task(
            contain("the loop giver", self._give_way(self._consumer)), name=f"giver of {self._service.name}"
        )

    async def stop_taking(self) -> None:
        """Take nothing new, and wait for what is under way."""
        for task in (self._keeping, self._giving_way):
            if task:
                task.cancel()
                await asyncio.wait({task})
        if self._consumer:
            await self._consumer.cancel()
        await self._dead_subscriber.stop()
        while self._in_hand:
            await asyncio.wait(self._in_hand)
        await self._acks.finish()
        await self._bindings.leave()

    async def close(self) -> None:
        """Disconnect; what is not acknowledged is delivered again."""
        await self._broker.stop()

    @property
    def loops(self) -> dict[str, asyncio.Task[None]]:
        """What keeps all declared and consumed, and what gives back what is in hand, once started."""
        known = {"keeper": self._keeping, "giver": self._giving_way}
        return {name: task for name, task in known.items() if task}

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands at this moment, with all declared that the service hears by."""
        return self._keeping is not None and stands(self._connection) and not self._is_refused

    async def _declare(self, channel: AbstractRobustChannel) -> None:
        """Declare all of it, and unbind what only a former release consumed."""
        left = await self._bindings.renew(bound_keys(self._service))
        self._runtime.decoder.former = frozenset(key.rpartition(".")[2] for key in self._bindings.former)
        await declare(channel, self._settings, self._service, given=self._given)
        if (new := set(left) - self._bound_for_good) and self._connection:
            await self._unbind(self._connection, new)

    async def _unbind(self, connection: AbstractRobustConnection, keys: set[str]) -> None:
        if await unbind(connection, self._settings, self._service.name, keys):
            await self._bindings.unbound(keys)
            return
        self._bound_for_good |= keys  # asking again would only be refused again
        cure = "unbind them by a login that may read these keys; until then their events are dead letters"
        log.error("the broker does not let us unbind what a former release consumed", keys=sorted(keys), cure=cure)

    async def _keep(self, channel: AbstractRobustChannel, consumer: Consumer) -> None:
        """Declare all of it again and again: nobody else misses a binding that was deleted behind its back."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.redeclare_every.total_seconds()):
                    await consumer.ended.wait()
            consumer.ended.clear()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self._declare(channel)
                    await consumer.consume()
                self._is_refused = False
            except asyncio.CancelledError:
                # aio-pika ends a call on a dying connection this way though nobody cancelled.
                if (task := asyncio.current_task()) and task.cancelling():
                    raise
            except Exception as error:  # noqa: BLE001 -- whatever the broker's client raises, the next time may be well
                self._say_not_declared(error)

    def _say_not_declared(self, error: Exception) -> None:
        refusal = refusal_of(error, self._settings)
        self._is_refused = refusal is not None
        say = log.error if refusal else log.warning
        say("queue and bindings could not be declared again", queue=self._queue.name, error=describe(refusal or error))

    async def _give_way(self, consumer: Consumer) -> None:
        """Give back all that is in hand while the database is away for long: to others, who may reach theirs.

        Else the broker takes it back after its consumer timeout, and more than the prefetch would be held then.
        """
        batcher = self._runtime.batcher
        while True:
            await batcher.paused.wait()
            log.warning("the database is away for long; what is in hand is given back", messages=len(self._in_hand))
            with suppress(EscapedError):
                await contain("giving back", consumer.pause())
            batcher.let_go()
            await batcher.taking.wait()
            with suppress(EscapedError):
                await contain("consuming again", consumer.resume())

    def _forget_lost(self) -> None:
        """Forget what came on a channel that has closed: it is delivered again, and would be held twice."""
        for settled, raw in list(self._in_hand.items()):
            if raw.channel.is_closed:
                settled.cancel()

    async def _prepared(self, connection: AbstractRobustConnection) -> Consumer:
        """Return the service's consumer, on a channel of its own."""
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=self._settings.prefetch)
        await declare_queue(channel, self._queue, robust=True)  # it is there before it is consumed again
        return Consumer(channel, self._queue.name, self._handle, begin=self._forget_lost)

    async def _handle(self, raw: DeliveredMessage) -> None:
        """Have a message executed, and settled after the commit."""
        try:
            exchange, own = raw.exchange or "", self._queue.name
            wire = wire_of(raw.body, raw.routing_key, raw.header.properties, exchange=exchange, own=own)
            settled = self._runtime.take(wire, again=bool(raw.redelivered))
        except Exception as error:  # noqa: BLE001 -- as of a commit that failed
            await self._give_back(raw, error)
        else:
            self._in_hand[settled] = raw
            settled.add_done_callback(partial(self._settle, raw))

    def _settle(self, raw: DeliveredMessage, settled: asyncio.Future[None]) -> None:
        self._in_hand.pop(settled, None)
        error = None if settled.cancelled() else settled.exception()
        if settled.cancelled() or raw.channel.is_closed:
            return  # it is delivered again
        if error:
            giving_back = asyncio.create_task(self._give_back(raw, error))
            self._in_hand[giving_back] = raw
            giving_back.add_done_callback(lambda task: self._in_hand.pop(task, None))
        else:
            self._acks.acknowledge(raw)

    async def _give_back(self, raw: DeliveredMessage, error: BaseException) -> None:
        """Have the broker deliver a message again after a moment: it comes at once, and no limit bounds how often."""
        message_id = raw.header.properties.message_id
        log.error("message given back to the broker", error=describe(error), message_id=message_id)
        await asyncio.sleep(_MOMENT)
        await self._acks.give_back(raw)

    async def _dead_letter(self, message: RabbitMessage) -> None:
        """Put what the broker gave up into the service's table, and acknowledge it after the commit."""
        raw = message.raw_message
        try:
            await self._runtime.dead_letter(given_up(raw, self._service.name, self._queue.name))
        except Exception as error:  # noqa: BLE001 -- it stays with the broker, unacknowledged: given back, it would come at once again
            log.error("dead letter could not be kept; it stays with the broker", error=describe(error))
        else:
            await quietly(raw.ack())


async def _undecoded(message: RabbitMessage) -> RabbitMessage:
    # The decoder reads the bytes; a decoder that fails would take the verdict out of our hands.
    return message
