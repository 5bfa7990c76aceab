"""Services are cut off from the broker, one way and both ways."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from itertools import product

from tests.chaos.outcome import Outcome, Progress, wrong_ends
from tests.chaos.world import Servers, World, world
from tests.end_to_end.placed_orders import SERVICES, orders
from tests.end_to_end.proxy import Way
from tests.eventually import eventually


async def partitions(servers: Servers, *, lengths: Sequence[float], seed: int, progress: Progress) -> Outcome:
    """Cut one service, two or all off from the broker, one way and both ways, for each of these lengths."""
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
    """Return after how many seconds all sagas had ended correctly, or the remaining violations."""
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
