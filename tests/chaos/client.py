"""A client of the services under chaos: it starts sagas, answers them, sends poison, and records the expected ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.events import OrderCreated
from tests.chaos.mix import COMPLETED, EITHER, FAILED, Kind, Started
from tests.chaos.poison import Poison
from tests.end_to_end.placed_orders import is_bound_to_fail
from toolkit import Event
from toolkit.declaration.events import routing_key
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

_ALONE: Mapping[Kind, int] = {}


@dataclass(slots=True, kw_only=True)
class Client:
    """Sends past all proxies.

    - `due`: by saga type and id, the ends that a saga may have.
    - `poison`: by message id, what was sent.
    """

    publisher: RabbitPublisher
    placed: list[OrderCreated] = field(default_factory=list)
    placed_at: dict[str, float] = field(default_factory=dict)
    due: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    poison: dict[str, Poison] = field(default_factory=dict)

    async def place(self, orders: Sequence[OrderCreated], *, rate: float, beside: Mapping[Kind, int] = _ALONE) -> None:
        """Send orders at a steady rate, each until the broker confirms it.

        `beside` has other kinds of sagas, each with the number of orders to one of it.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            begun = loop.time()
            for number, order in enumerate(orders):
                await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))  # the rate
                tasks.create_task(self._place(order))
                for kind, every in beside.items():
                    if number % every == 0:
                        tasks.create_task(self._start(kind(order.order_id, number // every)))

    async def send_poison(self, poison: Poison) -> None:
        """Send poison, and record its expected end."""
        self.poison[str(poison.message.message_id)] = poison
        if poison.dare_id:
            self.due["dare", poison.dare_id] = FAILED
        await self.send(poison.message)

    async def send(self, message: WireMessage) -> None:
        """Send a message repeatedly until the broker confirms it."""
        while True:
            try:
                await self.publisher.publish(message)
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) and task.cancelling():
                    raise
            except Exception:  # noqa: BLE001 -- without a confirm the client sends it again, whatever the error
                await asyncio.sleep(0.5)
            else:
                return

    def may_end_either_way(self, saga_type: str, saga_id: str) -> None:
        """Allow both ends of a saga: it was cancelled."""
        self.due[saga_type, saga_id] = EITHER

    async def _place(self, order: OrderCreated) -> None:
        self.placed_at[order.order_id] = datetime.now().astimezone().timestamp()
        self.due["order", order.order_id] = FAILED if is_bound_to_fail(order) else COMPLETED
        await self.send(WireMessage(order.model_dump_json().encode(), "order.OrderCreated"))
        self.placed.append(order)

    async def _start(self, started: Started) -> None:
        """Start a saga, and give its answers; some come before the question."""
        self.due[started.saga.name, started.id] = started.ends
        await self._emit(started.event, started.id)
        async with asyncio.TaskGroup() as tasks:
            for after, answer in started.answers:
                tasks.create_task(self._answer(after, answer, started.id))

    async def _answer(self, after: float, answer: Event, saga_id: str) -> None:
        await asyncio.sleep(after)  # the time that a person takes
        await self._emit(answer, saga_id)

    async def _emit(self, event: Event, saga_id: str) -> None:
        """Send an event as a plain client, with a routing key, a body and the saga's id."""
        await self.send(WireMessage(event.model_dump_json().encode(), routing_key(type(event)), correlation_id=saga_id))
