"""Services are killed, and the time until their open sagas move is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from services.events import OrderCreated
from tests.chaos.outcome import Outcome, Progress, percentile, spread
from tests.chaos.world import Servers, World, world
from tests.end_to_end.placed_orders import SERVICES, orders
from tests.eventually import eventually

#: How soon a saga has to move after its service's restart, and an overdue step to be noticed, in seconds.
MOVES_WITHIN, NOTICED_WITHIN = 5.0, 10.0


async def recovery(servers: Servers, *, kills: int, seed: int, progress: Progress) -> Outcome:
    """Kill services, alone and beside a replica, and measure how soon open sagas move; make some overdue."""
    began = time.monotonic()
    alone = await _returns(servers, kills, progress)
    shared = await _leases(servers, kills, progress)
    late = await _overdue(servers)
    progress("recoveries", 1)
    figures = {
        **spread("seconds to move after the service's restart", alone),
        **spread("seconds to move after the kill of one replica of two", shared),
        **spread("seconds from overdue to its detection", late),
    }
    wrong = [
        f"{what}: {percentile(values, 99):.1f} s at the 99th percentile, at most {limit:g} s are allowed"
        for what, values, limit in (
            ("moved after the restart", alone, MOVES_WITHIN),
            ("noticed overdue", late, NOTICED_WITHIN),
            # The dead replica's messages are redelivered at once; a row that it had claimed, after its lease.
            ("moved after a kill", shared, MOVES_WITHIN + 2),
        )
        if not values or percentile(values, 99) > limit
    ]
    return Outcome(run="recovery", seed=seed, figures=figures, violations=wrong, seconds=time.monotonic() - began)


async def _returns(servers: Servers, kills: int, progress: Progress) -> list[float]:
    """Return how many seconds each open saga took to move after its only service's restart."""
    waited: list[float] = []
    async with world(servers, replicas=1) as here:
        for name in SERVICES * kills:
            await here.fleet.kill(name)
            placed = orders(20)
            await here.place(placed, rate=200)
            (back,) = await here.fleet.start(name)
            assert back.process.returncode is None
            ready_at = time.time()
            await eventually(lambda: _all_ended(here), within=60, every=0.2, what="all ended")
            waited += await _moves(here, name, [order.order_id for order in placed], ready_at)
            progress("recoveries", 1)
    return waited


async def _leases(servers: Servers, kills: int, progress: Progress) -> list[float]:
    """Return how many seconds each open saga took to move after a kill of one of two replicas."""
    waited: list[float] = []
    async with world(servers, replicas=2) as here:
        for name in SERVICES * kills:
            placed = orders(40)
            placing = asyncio.create_task(here.place(placed, rate=100))
            await eventually(partial(_half_placed, here, placed), within=60, every=0.01, what="orders on their way")
            await here.fleet.kill(name)
            killed_at = time.time()
            await placing
            await eventually(lambda: _all_ended(here), within=60, every=0.2, what="all ended")
            in_flight = [each for each in placed if here.placed_at[each.order_id] < killed_at]
            waited += await _moves(here, name, [order.order_id for order in in_flight], killed_at)
            await here.fleet.start(name)
            progress("recoveries", 1)
    return waited


async def _half_placed(here: World, placed: Sequence[OrderCreated]) -> bool:
    return sum(order.order_id in here.placed_at for order in placed) >= len(placed) / 2


async def _moves(here: World, name: str, sagas: Sequence[str], since: float) -> list[float]:
    """Return when each of these sagas first moved in a service, in seconds after that moment."""
    query = "SELECT saga_id, at FROM saga_log WHERE position IS NOT NULL ORDER BY id"
    first: dict[str, float] = {}
    for row in await here.rows(name, query):
        if (at := row["at"].timestamp()) >= since:
            first.setdefault(row["saga_id"], at - since)
    return [first[saga] for saga in sagas if saga in first]


async def _overdue(servers: Servers) -> list[float]:
    """Return how many seconds late each overdue saga was noticed, without the payment service."""
    after = 3.0
    async with world(servers, replicas=1, environment={"SAGA_OVERDUE_AFTER": str(after)}) as here:
        await here.fleet.kill("payment")
        await here.place(orders(50), rate=10)
        query = (
            "SELECT extract(epoch FROM note.at - step.at) AS took FROM saga_log note JOIN saga_log step"
            " ON step.saga_id = note.saga_id AND step.step = note.step AND step.position = 1"
            " WHERE note.to_state = 'overdue'"
        )

        async def all_noted() -> list[float]:
            found = [float(row["took"]) - after for row in await here.rows("inventory", query)]
            return found if len(found) >= 50 else []

        noted = await eventually(all_noted, within=60, every=0.5, what="a note on each saga")
        await here.fleet.start("payment")
        await eventually(lambda: _all_ended(here), within=60, every=0.2, what="all ended")
    return noted


async def _all_ended(here: World) -> bool:
    return await here.count_ended() == len(here.due)
