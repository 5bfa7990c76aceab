"""A client of the services under chaos: it sends orders, gifts and poison, and records their expected ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.events import OrderCreated
from tests.chaos.poison import Poison
from tests.chaos.shop.gifts import GiftOrdered
from tests.end_to_end.placed_orders import is_bound_to_fail
from toolkit.declaration.events import routing_key
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.rabbitmq.publisher import RabbitPublisher


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

    async def place(self, orders: Sequence[OrderCreated], *, rate: float, gifts: int = 0) -> None:
        """Send orders at a steady rate, each until the broker confirms it; one in `gifts` orders has a gift."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            begun = loop.time()
            for number, order in enumerate(orders):
                await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))  # the rate
                tasks.create_task(self._place(order))
                if gifts and number % gifts == 0:
                    tasks.create_task(self._give(order.order_id, is_wanted=number % (2 * gifts) > 0))

    async def send_poison(self, poison: Poison) -> None:
        """Send poison, and record its expected end."""
        self.poison[str(poison.message.message_id)] = poison
        if poison.dare_id:
            self.due["dare", poison.dare_id] = frozenset({"Failed"})
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
        self.due[saga_type, saga_id] = frozenset({"Completed", "Failed"})

    async def _place(self, order: OrderCreated) -> None:
        self.placed_at[order.order_id] = datetime.now().astimezone().timestamp()
        self.due["order", order.order_id] = frozenset({"Failed" if is_bound_to_fail(order) else "Completed"})
        await self.send(WireMessage(order.model_dump_json().encode(), "order.OrderCreated"))
        self.placed.append(order)

    async def _give(self, order_id: str, *, is_wanted: bool) -> None:
        self.due["gift", order_id] = frozenset({"Completed" if is_wanted else "Failed"})
        gift = GiftOrdered(order_id=order_id, is_wanted=is_wanted)
        await self.send(WireMessage(gift.model_dump_json().encode(), routing_key(GiftOrdered)))
