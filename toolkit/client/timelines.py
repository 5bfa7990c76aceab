"""One saga's timeline, gathered from all services.

A service that does not answer makes a gap that is named; it never makes a saga look undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from toolkit.client.sources import Source, ask_all
from toolkit.persistence.saga_log import SagaKey
from toolkit.protocol.timeline import Timeline, tell

#: How many sagas are asked for at once: enough to hide the latency, too few to make a source slow.
_AT_ONCE = 10


async def timeline_of(saga: SagaKey, sources: Sequence[Source]) -> Timeline:
    """Ask all sources for this saga, and tell its story."""
    saga_type, saga_id = saga
    answers = await ask_all(sources, lambda source: source.entries(saga_id, saga_type=saga_type))
    return tell(saga_id, answers.by_service, unreachable=answers.unreachable)


async def timelines_of(sagas: Sequence[SagaKey], sources: Sequence[Source]) -> list[Timeline]:
    """Tell several sagas' stories, in this order."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def told(saga: SagaKey) -> Timeline:
        async with room:
            return await timeline_of(saga, sources)

    return await asyncio.gather(*(told(saga) for saga in sagas))
