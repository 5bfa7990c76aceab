"""Consumes one service's messages from RabbitMQ: its queue, and the queue of what the broker dead-letters.

A delivery is acknowledged after its commit, never before.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from aio_pika.abc import AbstractRobustConnection
from faststream.rabbit import Channel
from faststream.rabbit.prometheus import RabbitPrometheusMiddleware
from prometheus_client import REGISTRY

from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Service
from toolkit.errors import EscapedError
from toolkit.foreign_code.containment import contain
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.transport.rabbitmq.connection import broker_of, open_connection, stands
from toolkit.transport.rabbitmq.dead_letter_subscriber import DeadLetterSubscriber
from toolkit.transport.rabbitmq.declarations import Declarations
from toolkit.transport.rabbitmq.deliveries import Deliveries
from toolkit.transport.rabbitmq.queue_consumer import QueueConsumer
from toolkit.transport.rabbitmq.topology import declare_queue, declared_queues

log = structlog.get_logger("toolkit")


class RabbitConsumer:
    """Receives one service's messages over a connection of its own, and settles them after their commit.

    A second consumer moves messages from the broker's dead-letter queue into the service's own table.
    """

    def __init__(self, service: Service, settings: Settings, runtime: ServiceRuntime) -> None:
        self._service = service
        self._settings = settings
        self._runtime = runtime
        self._queue, dead_queue = declared_queues(settings, service.name)
        # FastStream's own metrics count its one subscriber, which is that of the dead letters.
        counted = RabbitPrometheusMiddleware(registry=REGISTRY, app_name=service.name)
        self._broker = broker_of(settings, default_channel=Channel(), middlewares=[counted])
        self._declarations = Declarations(service, settings, runtime)
        self._dead_letters = DeadLetterSubscriber(self._broker, dead_queue, runtime, queue=self._queue.name)
        self._connection: AbstractRobustConnection | None = None
        self._queue_consumer: QueueConsumer | None = None
        self._redeclaring: asyncio.Task[None] | None = None
        self._pausing: asyncio.Task[None] | None = None
        self.deliveries = Deliveries(runtime, self._queue.name)

    async def start(self) -> None:
        """Declare what the service needs on the broker, begin to consume, and keep all of it declared."""
        self._connection = await open_connection(self._broker)
        await self._declarations.begin(self._connection)
        await self._broker.start()
        if self._queue_consumer is None:
            self._queue_consumer = await self._open(self._connection)
        await self._queue_consumer.consume()
        name = self._service.name
        self._redeclaring = asyncio.create_task(
            contain("the loop redeclaration", self._declarations.keep(self._queue_consumer)),
            name=f"redeclaration of {name}",
        )
        self._pausing = asyncio.create_task(
            contain("the loop outage-pause", self._pause_in_outages(self._queue_consumer)),
            name=f"outage-pause of {name}",
        )

    async def stop_taking(self) -> None:
        """Take nothing new, and wait until each delivery in hand is settled."""
        for task in self.loops.values():
            task.cancel()
            await asyncio.wait({task})
        if self._queue_consumer:
            await self._queue_consumer.cancel()
        await self._dead_letters.stop()
        await self.deliveries.finish()
        await self._declarations.leave()

    async def close(self) -> None:
        """Disconnect; the broker redelivers what is not acknowledged."""
        await self._broker.stop()

    @property
    def loops(self) -> dict[str, asyncio.Task[None]]:
        """The loop that keeps all declared and consumed, and the one that pauses in long outages, once started."""
        started = {"redeclaration": self._redeclaring, "outage-pause": self._pausing}
        return {name: task for name, task in started.items() if task}

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open, and the queue and its bindings are declared."""
        return self._redeclaring is not None and stands(self._connection) and not self._declarations.is_refused

    async def _open(self, connection: AbstractRobustConnection) -> QueueConsumer:
        """Return the consumer of the service's queue, on a channel of its own."""
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=self._settings.prefetch)
        await declare_queue(channel, self._queue, robust=True)  # it exists before it is consumed again
        return QueueConsumer(
            channel, self._queue.name, self.deliveries.accept, begin=self.deliveries.forget_closed_channels
        )

    async def _pause_in_outages(self, consumer: QueueConsumer) -> None:
        """Return all deliveries to the broker during a long database outage; another replica may reach its database.

        Otherwise the broker's consumer timeout would end the channel, and redelivery would exceed the prefetch.
        """
        batcher = self._runtime.batcher
        while True:
            await batcher.paused.wait()
            log.warning("long database outage; deliveries are returned to the broker", messages=len(self.deliveries))
            with suppress(EscapedError):
                await contain("returning deliveries", consumer.pause())
            batcher.let_go()
            await batcher.taking.wait()
            with suppress(EscapedError):
                await contain("consuming again", consumer.resume())
