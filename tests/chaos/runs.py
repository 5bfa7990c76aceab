"""The runs, each from a seed: all faults at once, duplicates and disorder, and commit order.

Each returns its figures and its violations.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from services.events import order_saga
from tests.chaos.faults import FaultInjector
from tests.chaos.mix import GIFTS, MIX, gift, per_order
from tests.chaos.outcome import Outcome, Progress, lengths, spread, wrong_ends
from tests.chaos.plan import BROKER_FAULTS, DATABASE_FAULTS, STEADY, Fault, Size, plan
from tests.chaos.shop.apps import SERVICES as APPS
from tests.chaos.shop.apps import fulfillment
from tests.chaos.tap import Tap, routes_of
from tests.chaos.world import Servers, World, world
from tests.commit_order import race
from tests.conftest import PostgresDatabases
from tests.end_to_end.placed_orders import SERVICES, is_bound_to_fail, orders
from tests.eventually import eventually
from tests.example_sagas.loans import stock
from toolkit.persistence.database import Database

#: How long all sagas may take to end after the last fault, in seconds.
_CONVERGES_WITHIN = 300.0
#: The most kinds of errors in the report, the most frequent first.
_SHOWN = 10
#: The setting with which the orders' steps run when the coordinator asks them.
ASKED_BY = {"SAGA_ASKED_BY": json.dumps({order_saga.name: fulfillment.name})}


async def chaos(
    servers: Servers,
    size: Size,
    *,
    seed: int,
    progress: Progress,
    only: Collection[Fault] = tuple(Fault),
    is_coordinated: bool = False,
) -> Outcome:
    """Send orders and sagas of all other shapes at a steady rate during the plan's faults; let all end, and check them.

    - `only`: the run is limited to these classes of faults: that isolates the cause of a violation.
    - `is_coordinated`: a fifth service coordinates the orders.
    """
    began, environment = time.monotonic(), prompt(size.missed_after)
    services = SERVICES
    if is_coordinated:
        services, environment = (*SERVICES, fulfillment.name), environment | ASKED_BY
    planned = plan(seed, size, services=services, only=only)
    async with world(servers, services=services, environment=environment) as here:
        injector, tap = FaultInjector(here), Tap(here.fleet.settings, seed=seed)
        mix = {kind: every for kind, every in MIX.items() if kind is not gift or Fault.CROSSED in only}
        placed = orders(round(size.sagas / per_order(mix)))
        async with _beside(_watch(here, progress), here.keep_running()):
            begun_at = time.time()
            # The tap is a fault, too: it ends with the others, and the copies that it still holds are not needed.
            async with _beside(*[tap.run()] if Fault.DOUBLED in only else []), asyncio.TaskGroup() as tasks:
                tasks.create_task(here.place(placed, rate=len(placed) / size.span, beside=mix))
                for lane in planned.lanes.values():
                    tasks.create_task(injector.run(lane, done=lambda: progress("faults", 1)))
            calm_at, ended_meanwhile = time.time(), await here.count_ended()
            await tap.remove()
            violations = await here.converged(within=_CONVERGES_WITHIN)
        ends = await here.ends()
        fired = injector.fired | _steady(here, tap)
        late = [at - calm_at for _, at in ends.values() if at > calm_at]
        figures = _statistics(here, ends, injector, fired) | {
            "sagas that ended while the faults were on": ended_meanwhile,
            "seconds under faults": round(calm_at - begun_at),
            **spread("seconds from order to end", lengths(here, ends)),
            **spread("seconds from the last fault to the end", late),
        }
        idle = _idle_faults(fired, planned.faults | set(only).intersection(STEADY))
        wrong = [*violations, *wrong_ends(here, ends), *idle, *_trivial(injector, ended_meanwhile, size)]
    return Outcome(
        run="coordinated" if is_coordinated else "chaos",
        seed=seed,
        figures=figures,
        violations=wrong,
        seconds=time.monotonic() - began,
        details={"plan": {name: [asdict(each) for each in lane] for name, lane in planned.lanes.items()}},
    )


def prompt(missed_after: float) -> dict[str, str]:
    """Return settings with which lost messages are requested after so many seconds, for example a saga's end."""
    seconds = f"{missed_after:g}"
    return {"SAGA_OVERDUE_AFTER": seconds, "SAGA_NUDGE_EVERY": seconds, "SAGA_WATCH_EVERY": "1"}


async def duplicates(servers: Servers, *, deliveries: int, seed: int, progress: Progress) -> Outcome:
    """Replace all bindings by a tap that doubles every fifth delivery and shuffles all of them."""
    began = time.monotonic()
    # An order has about eight deliveries, those of its end included; the tap counts them.
    placed = orders(-(-deliveries // 8))
    async with world(servers, environment={"SAGA_REDECLARE_EVERY": "3600"}) as here:
        tap = Tap(here.fleet.settings, seed=seed, routes=routes_of(here.fleet.settings, APPS))
        async with _beside(tap.run(), _watch(here, progress)):
            await eventually(lambda: _is_serving(tap), what="the tap")
            await here.place(placed, rate=100, beside=GIFTS)
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
            **spread("seconds from order to end", lengths(here, ends)),
        }
        wrong = [*violations, *wrong_ends(here, ends)]
        if tap.delivered < deliveries or tap.doubled < 0.15 * tap.delivered:
            wrong.append(f"only {tap.delivered} deliveries were made, {tap.doubled} of them doubled")
    return Outcome(run="duplicates", seed=seed, figures=figures, violations=wrong, seconds=time.monotonic() - began)


async def commit_order(servers: Servers, *, pairs: int, seed: int, progress: Progress) -> Outcome:
    """Let pairs of transactions write to an outbox, and commit in either order, while a relay publishes from it."""
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


async def _is_serving(tap: Tap) -> bool:
    return tap.is_serving


async def _is_empty(tap: Tap) -> bool:
    return tap.is_empty


async def _watch(here: World, progress: Progress) -> None:
    """Report how many sagas have ended."""
    reported = 0
    while True:
        ended = await here.count_ended()
        progress("sagas ended", ended - reported)
        reported = ended
        await asyncio.sleep(1)  # often enough for a progress bar


@asynccontextmanager
async def _beside(*running: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these meanwhile, and cancel them on leaving, after an error, too: none may outlive the fleet."""
    tasks = [asyncio.create_task(each) for each in running]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _steady(here: World, tap: Tap) -> Counter[Fault]:
    crossed = sum(saga_type == "gift" for saga_type, _ in here.due)
    return Counter({Fault.DOUBLED: tap.doubled, Fault.SHUFFLED: tap.shuffled, Fault.CROSSED: crossed})


def _statistics(
    here: World, ends: Mapping[tuple[str, str], tuple[str, float]], injector: FaultInjector, fired: Counter[Fault]
) -> dict[str, object]:
    sagas = Counter(saga_type for saga_type, _ in here.due)
    states = Counter(f"{saga_type} {state}" for (saga_type, _), (state, _) in ends.items())
    return {
        "sagas by type": dict(sorted(sagas.items())),
        "ends": dict(sorted(states.items())),
        "orders bound to fail": sum(map(is_bound_to_fail, here.placed)),
        "processes killed": injector.kills,
        "processes that ended by themselves": {str(code): count for code, count in here.fallen.items()},
        "broker outages": sum(fired[fault] for fault in BROKER_FAULTS),
        "database outages": sum(fired[fault] for fault in DATABASE_FAULTS),
        "exit codes after SIGTERM": {str(code): count for code, count in injector.exit_codes.items()},
        "dead letters of poison": dict(Counter(here.dead_letters.values())),
        "dead letters for a former release": here.outdated,
        "errors logged": dict(here.errors().most_common(_SHOWN)),
        "faults injected": {fault.value: fired[fault] for fault in Fault if fired[fault]},
    }


def _idle_faults(fired: Counter[Fault], planned: Collection[Fault]) -> list[str]:
    """Return the classes of faults that did not take effect."""
    return [f"never injected: {fault.value}" for fault in Fault if fault in planned and not fired[fault]]


def _trivial(injector: FaultInjector, ended_meanwhile: int, size: Size) -> list[str]:
    """Return why the run proves less than required."""
    idle = []
    if ended_meanwhile < size.sagas / 2:
        idle.append(f"only {ended_meanwhile} sagas ended while the faults were on")
    if set(injector.exit_codes) - {0}:
        idle.append(f"exit codes after SIGTERM: {dict(injector.exit_codes)}")
    return idle
