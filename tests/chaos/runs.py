"""The runs, each from a seed: all faults at once, duplicates and disorder, commit order, partitions, and recovery.

Each returns what it did and what it found; whether that is good enough is said by the run's own faults.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from typing import Any

from services.events import OrderCreated
from tests.chaos.faults import Striker
from tests.chaos.plan import BROKER_FAULTS, DATABASE_FAULTS, STEADY, Fault, Size, plan
from tests.chaos.shop.apps import SERVICES as APPS
from tests.chaos.tap import Tap, routes_of
from tests.chaos.world import Servers, World, world
from tests.commit_order import race
from tests.conftest import PostgresDatabases
from tests.end_to_end.placed_orders import SERVICES, is_bound_to_fail, orders
from tests.end_to_end.proxy import Way
from tests.eventually import eventually
from tests.example_sagas.loans import stock
from toolkit.persistence.database import Database

#: How long everything may take to come to its end after the last fault, in seconds.
_CONVERGES_WITHIN = 300.0
#: So many kinds of errors are reported, the most frequent first.
_SHOWN = 10
#: With every so many orders comes a gift under the same id.
_ORDERS_PER_GIFT = 3
#: How soon a saga has to move after its service's return, and an overdue step to be noticed, in seconds.
MOVES_WITHIN, NOTICED_WITHIN = 5.0, 10.0

Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did, in figures by name, and what was wrong; nothing wrong is what is asked."""

    run: str
    seed: int
    figures: dict[str, object]
    violations: Sequence[str] = ()
    seconds: float = 0.0
    details: dict[str, object] = field(default_factory=dict)


async def chaos(
    servers: Servers, size: Size, *, seed: int, progress: Progress, only: Collection[Fault] = tuple(Fault)
) -> Outcome:
    """Feed orders at a steady rate while the plan's faults befall everything; then let it converge, and judge.

    With `only`, these classes of faults alone: that tells which of them it is.
    """
    began, blows = time.monotonic(), plan(seed, size, only=only)
    async with world(servers, environment=prompt(size.missed_after)) as here:
        striker, tap = Striker(here), Tap(here.fleet.settings, seed=seed)
        gifts = _ORDERS_PER_GIFT if Fault.CROSSED in only else 0
        async with _beside(_watch(here, progress), here.keep_running()):
            begun_at = time.time()
            # The tap is a fault, too: it ends with the others, and what it still holds is not missed.
            async with _beside(*[tap.run()] if Fault.DOUBLED in only else []), asyncio.TaskGroup() as tasks:
                tasks.create_task(here.place(orders(size.sagas), rate=size.sagas / size.span, gifts=gifts))
                for lane in blows.lanes.values():
                    tasks.create_task(striker.run(lane, struck=lambda: progress("faults", 1)))
            calm_at, ended_meanwhile = time.time(), await here.count_ended()
            await tap.remove()
            violations = await here.converged(within=_CONVERGES_WITHIN)
        ends = await here.ends()
        crossed = sum(saga_type == "gift" for saga_type, _ in here.due)
        steady = {Fault.DOUBLED: tap.doubled, Fault.SHUFFLED: tap.shuffled, Fault.CROSSED: crossed}
        fired = striker.fired | Counter(steady)
        figures = _statistics(here, striker, fired) | {
            "sagas that ended while the faults were on": ended_meanwhile,
            "seconds under faults": round(calm_at - begun_at),
            **_spread("seconds from order to end", _lengths(here, ends)),
            **_spread(
                "seconds from the last fault to the end", [at - calm_at for _, at in ends.values() if at > calm_at]
            ),
        }
        idle = _idle_faults(fired, blows.faults | set(only).intersection(STEADY))
        wrong = [*violations, *wrong_ends(here, ends), *idle, *_trivial(striker, ended_meanwhile, size)]
    return Outcome(
        run="chaos",
        seed=seed,
        figures=figures,
        violations=wrong,
        seconds=time.monotonic() - began,
        details={"plan": {name: [asdict(blow) for blow in lane] for name, lane in blows.lanes.items()}},
    )


def prompt(missed_after: float) -> dict[str, str]:
    """Return settings under which what was lost is missed after so many seconds: the news of a saga's end, say."""
    seconds = f"{missed_after:g}"
    return {"SAGA_OVERDUE_AFTER": seconds, "SAGA_NUDGE_EVERY": seconds, "SAGA_WATCH_EVERY": "1"}


async def duplicates(servers: Servers, *, deliveries: int, seed: int, progress: Progress) -> Outcome:
    """Let a tap take the place of all bindings, that doubles every fifth delivery and shuffles all of them."""
    began = time.monotonic()
    # Eight deliveries an order, the closing ones included, come near enough; they are counted as they are made.
    placed = orders(-(-deliveries // 8))
    async with world(servers, environment={"SAGA_REDECLARE_EVERY": "3600"}) as here:
        tap = Tap(here.fleet.settings, seed=seed, routes=routes_of(here.fleet.settings, APPS))
        async with _beside(tap.run(), _watch(here, progress)):
            await eventually(lambda: _is_serving(tap), what="the tap")
            await here.place(placed, rate=100, gifts=_ORDERS_PER_GIFT)
            violations = await here.converged(within=_CONVERGES_WITHIN + deliveries / 50)
            await eventually(lambda: _is_empty(tap), what="an empty tap")
            violations = violations or await here.converged(within=60)
        ends = await here.ends()
        await tap.remove()
        figures = {
            "sagas": len(here.due),
            "deliveries": tap.delivered,
            "doubled": tap.doubled,
            "out of order": tap.shuffled,
            "double effects": len(violations),
            **_spread("seconds from order to end", _lengths(here, ends)),
        }
        wrong = [*violations, *wrong_ends(here, ends)]
        if tap.delivered < deliveries or tap.doubled < 0.15 * tap.delivered:
            wrong.append(f"only {tap.delivered} deliveries were made, {tap.doubled} of them doubled")
    return Outcome(run="duplicates", seed=seed, figures=figures, violations=wrong, seconds=time.monotonic() - began)


async def commit_order(servers: Servers, *, pairs: int, seed: int, progress: Progress) -> Outcome:
    """Have pairs of transactions write to an outbox, and commit in either order, while a relay publishes from it."""
    began, databases = time.monotonic(), PostgresDatabases(servers.database.url)
    database = Database(await databases.url("library"))
    try:
        await stock(database)
        left = await race(database, pairs=pairs, seed=seed, progress=lambda more: progress("pairs", more))
    finally:
        await database.close()
        await databases.drop()
    wrong = [f"never published: {', '.join(left[:10])}"] if left else []
    figures: dict[str, object] = {"pairs of transactions": pairs, "rows left behind": len(left)}
    return Outcome(run="commit-order", seed=seed, figures=figures, violations=wrong, seconds=time.monotonic() - began)


async def partitions(servers: Servers, *, lengths: Sequence[float], seed: int, progress: Progress) -> Outcome:
    """Part one service, two or all from the broker, one way and both ways, for each of these lengths."""
    began, dice = time.monotonic(), random.Random(seed)
    cells, wrong = {}, []
    async with world(servers, replicas=1, own_ways=True) as here:
        for parted, ways, length in product((1, 2, 4), (1, 2), lengths):
            names = sorted(dice.sample(SERVICES, parted))
            cut = tuple(Way) if ways == 2 else (dice.choice(list(Way)),)
            cell = f"{', '.join(names)}; {' and '.join(way.value for way in cut)}; {length:g} s"
            cells[cell] = found = await _part(here, names, cut, length)
            wrong += [f"{cell}: {each}" for each in (found if isinstance(found, list) else [])]
            progress("partitions", 1)
        wrong += wrong_ends(here, await here.ends())
        held = sum(not isinstance(each, list) for each in cells.values())
        figures: dict[str, object] = {"cells": len(cells), "cells that held": held, "sagas": len(here.placed)}
    details = {"seconds to converge": {name: found for name, found in cells.items() if not isinstance(found, list)}}
    seconds = time.monotonic() - began
    return Outcome(run="partitions", seed=seed, figures=figures | details, violations=wrong, seconds=seconds)


async def _part(here: World, names: Iterable[str], cut: tuple[Way, ...], length: float) -> float | list[str]:
    """Return after how many seconds all was right again, or what is still wrong."""
    before = await here.fleet.moved()

    async def are_on_their_way() -> bool:
        return await here.fleet.moved() > before

    placing = asyncio.create_task(here.place(orders(int(10 * (length + 4))), rate=10))
    await eventually(are_on_their_way, what="orders on their way")
    for name in names:
        here.ways[name].cut(*cut)
    await asyncio.sleep(length)  # the partition's own length
    for name in names:
        here.ways[name].heal()
    healed = time.monotonic()
    await placing
    if found := await here.converged(within=120):
        return found
    return round(time.monotonic() - healed, 1)


async def recovery(servers: Servers, *, kills: int, seed: int, progress: Progress) -> Outcome:
    """Kill services, alone and beside a replica, and see how soon the sagas in flight move; make some overdue."""
    began = time.monotonic()
    alone = await _returns(servers, kills, progress)
    shared = await _leases(servers, kills, progress)
    late = await _overdue(servers)
    progress("recoveries", 1)
    figures = {
        **_spread("seconds to move after the service's return", alone),
        **_spread("seconds to move after the kill of one replica of two", shared),
        **_spread("seconds by which overdue was noticed late", late),
    }
    wrong = [
        f"{what}: {_percentile(values, 99):.1f} s at the 99th percentile, {limit:g} s are asked"
        for what, values, limit in (
            ("moved after the return", alone, MOVES_WITHIN),
            ("noticed overdue", late, NOTICED_WITHIN),
            # The dead replica's messages come back at once; a row that it had claimed, when its lease is over.
            ("moved after a kill", shared, MOVES_WITHIN + 2),
        )
        if not values or _percentile(values, 99) > limit
    ]
    return Outcome(run="recovery", seed=seed, figures=figures, violations=wrong, seconds=time.monotonic() - began)


async def _returns(servers: Servers, kills: int, progress: Progress) -> list[float]:
    """Return how many seconds each saga in flight took to move once its only service was back."""
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
    """Return how many seconds each saga in flight took to move after one of the service's two replicas was killed."""
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
    """Return by how many seconds late each overdue saga was noticed, with the payment service away."""
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


async def _is_serving(tap: Tap) -> bool:
    return tap.is_serving


async def _is_empty(tap: Tap) -> bool:
    return tap.is_empty


async def _watch(here: World, progress: Progress) -> None:
    """Tell how many sagas have ended."""
    told = 0
    while True:
        ended = await here.count_ended()
        progress("sagas ended", ended - told)
        told = ended
        await asyncio.sleep(1)  # often enough for people


@asynccontextmanager
async def _beside(*running: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have these run meanwhile, and end them on leaving, whatever happens: none may outlive the fleet."""
    tasks = [asyncio.create_task(each) for each in running]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _statistics(here: World, striker: Striker, fired: Counter[Fault]) -> dict[str, object]:
    sagas = Counter(saga_type for saga_type, _ in here.due)
    return {
        "sagas by type": dict(sorted(sagas.items())),
        "orders bound to fail": sum(map(is_bound_to_fail, here.placed)),
        "processes killed": striker.kills,
        "processes that ended by themselves": {str(code): count for code, count in here.fallen.items()},
        "broker outages": sum(fired[fault] for fault in BROKER_FAULTS),
        "database outages": sum(fired[fault] for fault in DATABASE_FAULTS),
        "exit codes after SIGTERM": {str(code): count for code, count in striker.exit_codes.items()},
        "dead letters of poison": dict(Counter(here.dead_letters.values())),
        "dead letters for a former release": here.outdated,
        "errors logged": dict(here.errors().most_common(_SHOWN)),
        "faults fired": {fault.value: fired[fault] for fault in Fault if fired[fault]},
    }


def wrong_ends(here: World, ends: dict[tuple[str, str], tuple[str, float]]) -> list[str]:
    """Return the sagas that ended as they must not."""
    wrong = {saga: state for saga, (state, _) in ends.items() if state not in here.due.get(saga, ())}
    return [
        f"{' '.join(saga)} ended {state}, and may end {' or '.join(sorted(here.due.get(saga, ())))}"
        for saga, state in wrong.items()
    ]


def _idle_faults(fired: Counter[Fault], planned: Collection[Fault]) -> list[str]:
    """Return the classes of faults that did not hit."""
    return [f"never fired: {fault.value}" for fault in Fault if fault in planned and not fired[fault]]


def _trivial(striker: Striker, ended_meanwhile: int, size: Size) -> list[str]:
    """Return why the run proves less than it should."""
    idle = []
    if ended_meanwhile < size.sagas / 2:
        idle.append(f"only {ended_meanwhile} sagas ended while the faults were on")
    if set(striker.exit_codes) - {0}:
        idle.append(f"exit codes after SIGTERM: {dict(striker.exit_codes)}")
    return idle


def _lengths(here: World, ends: dict[tuple[str, str], tuple[str, float]]) -> list[float]:
    return [at - here.placed_at[saga_id] for (saga_type, saga_id), (_, at) in ends.items() if saga_type == "order"]


def _spread(name: str, values: Sequence[float]) -> dict[str, object]:
    if not values:
        return {name: "none"}
    shown = {"p50": _percentile(values, 50), "p99": _percentile(values, 99), "max": max(values), "count": len(values)}
    return {name: {key: round(value, 2) for key, value in shown.items()}}


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
