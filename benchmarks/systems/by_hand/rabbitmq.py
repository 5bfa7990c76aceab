"""The links of hand-written loops over RabbitMQ: one write for a batch's events, one frame for its acknowledgement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from benchmarks.aiormq_channels import AiormqConnection
from benchmarks.bulk_amqp import BulkChannel, BulkConnection, Outgoing
from benchmarks.saga import ENDS
from benchmarks.systems.by_hand.batch import ENDED
from benchmarks.systems.by_hand.loop import Loop, Store, run_all
from benchmarks.systems.process import Assignment

#: Unacknowledged deliveries of a service.
PREFETCH = 400


class RabbitLink:
    """Two channels, on two connections: a memory alarm blocks the one that publishes."""

    def __init__(self, exchange: str, loop: Loop, consuming: BulkChannel, publishing: BulkChannel) -> None:
        self._exchange, self._loop, self._consuming, self._publishing = exchange, loop, consuming, publishing
        self._unconfirmed: dict[int, str] = {}
        self._oldest = 1
        self._returned: set[str] = set()
        publishing.on_confirms, publishing.on_returns = self._confirm, self._returned.update

    async def start(self, queue_type: str) -> None:
        """Declare, bind and consume."""
        queue, channel = f"{self._exchange}.{self._loop.name}", self._consuming.channel
        await channel.exchange_declare(self._exchange, exchange_type="topic", durable=True)
        await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": queue_type})
        for key in (*self._loop.routes, ENDED):
            await channel.queue_bind(queue, self._exchange, key)
        await self._consuming.consume(queue, self._loop.take, no_ack=False)

    def acknowledge(self, tag: int) -> None:
        """Acknowledge all deliveries up to this one."""
        self._consuming.acknowledge(tag)

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish messages by one write."""
        if messages:
            first = self._publishing.published + 1
            self._publishing.publish(self._exchange, messages, optional=ENDS)
            self._unconfirmed.update(enumerate((each.message_id for each in messages), first))

    def in_flight(self) -> set[str]:
        """Return the ids of the messages that are not confirmed yet."""
        return set(self._unconfirmed.values())

    def _confirm(self, confirms: list[tuple[int, bool]]) -> None:
        numbers: list[int] = []
        for number, and_all_before in confirms:
            if and_all_before:
                numbers += range(self._oldest, number + 1)
                self._oldest = number + 1
            else:
                numbers.append(number)
        found = [self._unconfirmed.pop(number) for number in numbers if number in self._unconfirmed]
        if self._returned:  # a message that no queue took stays in the outbox, and is published again
            found = [each for each in found if each not in self._returned]
            self._returned.clear()
        self._loop.confirm(found)


async def run(
    assignment: Assignment,
    stopped: asyncio.Event,
    open_store: Callable[[str], Awaitable[Store]],
    connection: type[BulkConnection] = AiormqConnection,
    loop_of: Callable[[str, Store], Loop] = Loop,
) -> None:
    """Run the services in this process, each with its own store."""
    consuming, publishing = await connection.connect(assignment.broker), await connection.connect(assignment.broker)
    loops = []
    for name, url in assignment.databases.items():
        loop = loop_of(name, await open_store(url))
        channels = await consuming.channel(prefetch=PREFETCH), await publishing.channel(confirms=True)
        loop.link = link = RabbitLink(assignment.exchange, loop, *channels)
        await link.start(assignment.queues)
        loops.append(loop)
    print("ready", flush=True)
    await run_all(loops, stopped)
    await consuming.close()
    await publishing.close()
