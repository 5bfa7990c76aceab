"""Lost control messages: for a while one service's queue is not bound to their key, and the broker drops them.

The service soon binds its queue again, but messages published meanwhile stay lost.
"""

from __future__ import annotations

import asyncio
import time

import aio_pika

from tests.chaos.plan import Fault, PlannedFault
from tests.chaos.world import World
from toolkit.clock import SystemClock
from toolkit.configuration.settings import queue_name
from toolkit.declaration.events import AbortRequested, SagaEnded, routing_key
from toolkit.messaging.envelope import abort_request

_KEYS = {Fault.ENDS_LOST: routing_key(SagaEnded), Fault.ABORTS_LOST: routing_key(AbortRequested)}
#: The interval between deletions of the binding, in seconds: the service restores it every five.
_EVERY = 0.1
#: How many orders are cancelled while one service receives no aborts.
_CANCELLED = 3


async def lose_controls(world: World, planned: PlannedFault) -> bool:
    """Keep one service from control messages; when these are aborts, cancel some orders."""
    settings = world.fleet.settings
    connection = await aio_pika.connect(settings.broker_url)
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue(queue_name(settings, planned.service))
        until, is_cancelling = time.monotonic() + planned.lasts, planned.fault is Fault.ABORTS_LOST
        while time.monotonic() < until:
            await queue.unbind(settings.exchange, _KEYS[planned.fault])
            if is_cancelling:
                await _cancel_some(world)
                is_cancelling = False
            await asyncio.sleep(_EVERY)
    return True


async def _cancel_some(world: World) -> None:
    """Cancel the latest orders; each may end either way."""
    for order in world.placed[-_CANCELLED:]:
        world.may_end_either_way("order", order.order_id)
        now = SystemClock().now()
        await world.send(abort_request("order", order.order_id, "the customer cancelled it", now=now))
