"""The limit without a broker: four services in this process hand messages to one another; a SQLite file each.

The receiver's commit is the confirm, as with the toolkit's embedded transport. The process is its own client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.bulk_amqp import Delivery, Outgoing
from benchmarks.client import PATIENCE, answer
from benchmarks.load import Case, Load, Orders
from benchmarks.saga import ENDS
from benchmarks.systems.by_hand.batch import ENDED
from benchmarks.systems.by_hand.loop import Loop, Store, run_all
from benchmarks.systems.by_hand.on_sqlite import SqliteStore
from benchmarks.systems.process import Assignment, work


@dataclass(slots=True)
class HandOver:
    """What the services hand to one another; `orders` is the client."""

    links: dict[str, list[EmbeddedLink]]
    orders: Orders | None = None

    def publish(self, sender: EmbeddedLink | None, messages: Iterable[Outgoing]) -> None:
        """Hand messages to all services that consume them, and the ends to the client."""
        ends: list[Outgoing] = []
        received: dict[EmbeddedLink, list[Outgoing]] = {}
        for message in messages:
            if message.routing_key in ENDS:
                ends.append(message)
            else:
                for link in self.links[message.routing_key]:
                    received.setdefault(link, []).append(message)
        for link, some in received.items():
            link.receive(sender, some)
        if ends and sender:
            sender.confirm([each.message_id for each in ends])
            if self.orders:
                self.orders.end(each.body for each in ends)


class EmbeddedLink:
    """One service's link."""

    def __init__(self, loop: Loop, hand_over: HandOver) -> None:
        self._loop, self._hand_over = loop, hand_over
        self._last_tag = 0
        self._received: deque[tuple[int, EmbeddedLink | None, str]] = deque()
        self._awaited: dict[str, int] = {}  # by message, the services that have not committed it
        for key in (*loop.routes, ENDED):
            hand_over.links.setdefault(key, []).append(self)

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Hand messages over."""
        for each in messages:
            if each.routing_key not in ENDS:
                self._awaited[each.message_id] = len(self._hand_over.links[each.routing_key])
        self._hand_over.publish(self, messages)

    def receive(self, sender: EmbeddedLink | None, messages: Iterable[Outgoing]) -> None:
        """Take what a service or the client publishes."""
        deliveries = []
        for message_id, key, body in messages:
            self._last_tag += 1
            self._received.append((self._last_tag, sender, message_id))
            deliveries.append(Delivery(self._last_tag, key, message_id, body))
        self._loop.take(deliveries)

    def acknowledge(self, tag: int) -> None:
        """Confirm to their senders all messages up to this one."""
        senders: dict[EmbeddedLink, list[str]] = {}
        while self._received and self._received[0][0] <= tag:
            _, sender, message_id = self._received.popleft()
            if sender:
                senders.setdefault(sender, []).append(message_id)
        for sender, message_ids in senders.items():
            sender.confirm(message_ids)

    def confirm(self, message_ids: Iterable[str]) -> None:
        """Have the rows of the messages deleted that all services have committed."""
        done = []
        for message_id in message_ids:
            left = self._awaited.pop(message_id, 1) - 1
            if left:
                self._awaited[message_id] = left
            else:
                done.append(message_id)
        self._loop.confirm(done)

    def in_flight(self) -> set[str]:
        """Return the ids of the messages that are not confirmed yet."""
        return set(self._awaited)


async def run(assignment: Assignment, stopped: asyncio.Event, open_store: Callable[[str], Awaitable[Store]]) -> None:
    """Run the services and the client in this process, each service with its own store."""
    hand_over = HandOver({})
    loops = []
    for name, url in assignment.databases.items():
        loop = Loop(name, await open_store(url))
        loop.link = EmbeddedLink(loop, hand_over)
        loops.append(loop)
    running = asyncio.create_task(run_all(loops, stopped))

    async def place(case: Case) -> Load:
        hand_over.orders = Orders(case, lambda messages: hand_over.publish(None, messages))
        return await hand_over.orders.place(patience=PATIENCE)

    answering = asyncio.create_task(answer(place))
    await asyncio.wait({running, answering}, return_when=asyncio.FIRST_COMPLETED)
    stopped.set()
    await running


if __name__ == "__main__":
    work(partial(run, open_store=SqliteStore.open))
