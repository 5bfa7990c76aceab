"""Moves messages from the broker's dead-letter queue into the service's own table, where an operator finds them."""

from __future__ import annotations

import structlog
from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue
from faststream.rabbit.message import RabbitMessage

from toolkit.errors import describe
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.transport.rabbitmq.acknowledgements import quietly
from toolkit.transport.rabbitmq.messages import given_up
from toolkit.transport.rabbitmq.topology import dead_letter_exchange

log = structlog.get_logger("toolkit")

#: How many of the broker's dead letters are on their way into the table at once.
_PREFETCH = 20


class DeadLetterSubscriber:
    """FastStream's subscriber to one dead-letter queue."""

    def __init__(self, broker: RabbitBroker, dead_queue: RabbitQueue, runtime: ServiceRuntime, *, queue: str) -> None:
        self._runtime = runtime
        self._queue = queue
        self._subscriber = broker.subscriber(
            dead_queue, channel=Channel(prefetch_count=_PREFETCH), ack_policy=AckPolicy.MANUAL, decoder=_undecoded
        )
        self._subscriber(self._store)

    async def stop(self) -> None:
        """Take nothing new."""
        await self._subscriber.stop()

    async def _store(self, message: RabbitMessage) -> None:
        """Insert a dead letter into the service's table, and acknowledge it after the commit."""
        raw = message.raw_message
        try:
            settings = self._runtime.settings
            names = {"queue": self._queue, "shared": settings.exchange, "dead": dead_letter_exchange(settings).name}
            await self._runtime.dead_letter(given_up(raw, self._runtime.service.name, **names))
        except Exception as error:  # noqa: BLE001 -- it stays unacknowledged: rejected, it would come at once again
            log.error("dead letter could not be kept; it stays with the broker", error=describe(error))
        else:
            await quietly(raw.ack())


async def _undecoded(message: RabbitMessage) -> RabbitMessage:
    # The toolkit's decoder reads the bytes; an error in FastStream's would settle the message before that.
    return message
