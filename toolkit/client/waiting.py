"""Waiting until sagas have ended, by reading their timelines again and again.

A saga has ended once one service knows that it has; a saga that no service knows yet is waited for, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from toolkit.client.saga_report import timelines_of
from toolkit.client.service_client import LogReader
from toolkit.protocol.timeline import Timeline

#: The pause after a round of reads, in seconds, and in rounds if that is longer: services that are read all the time
#: do nothing else.
_PAUSE, _PAUSE_IN_ROUNDS = 0.1, 3
#: How many of the running sagas are read in one round; the oldest are likely to end first.
_AT_ONCE = 50


async def wait_until_ended(
    saga_type: str | None,
    saga_ids: Sequence[str],
    clients: Sequence[LogReader],
    *,
    within: timedelta,
    ended: Callable[[Timeline], None] = lambda _: None,
) -> list[Timeline]:
    """Return the timelines of all sagas, after `within` at the latest; `ended` is called with each that has ended."""

    async def read(ids: Sequence[str]) -> list[Timeline]:
        return await timelines_of([(saga_type, saga_id) for saga_id in ids], clients)

    running, done = list(saga_ids), dict[str, Timeline]()
    until = time.monotonic() + within.total_seconds()
    while running and (began := time.monotonic()) < until:
        for timeline in await read(running[:_AT_ONCE]):
            if timeline.state and timeline.state.is_ended:
                done[timeline.saga_id] = timeline
                running.remove(timeline.saga_id)
                ended(timeline)
        await asyncio.sleep(_pause(began, until) if running else 0)
    done |= {timeline.saga_id: timeline for timeline in await read(running)}
    return [done[saga_id] for saga_id in saga_ids]


def _pause(began: float, until: float) -> float:
    """Return the pause after a round that began then; it never ends after `until`."""
    now = time.monotonic()
    return min(max(_PAUSE, (now - began) * _PAUSE_IN_ROUNDS), max(until - now, 0))
