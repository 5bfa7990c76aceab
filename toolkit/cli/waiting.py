"""Waiting until sagas have ended, by asking their services again and again.

What one service knows to have ended has ended; a saga that nobody knows yet goes on being waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from toolkit.client.sources import Source
    from toolkit.protocol.timeline import Timeline

#: How long services are left alone after a round of questions, in seconds, and in rounds if that is longer: whoever
#: is asked all the time does nothing else.
_PAUSE, _PAUSE_IN_ROUNDS = 0.1, 3
#: How many of the sagas that still run are asked for in one round; the oldest are likely to end first.
_AT_ONCE = 50


async def wait_until_ended(
    saga_type: str,
    saga_ids: Sequence[str],
    sources: Sequence[Source],
    *,
    within: timedelta,
    ended: Callable[[Timeline], None],
) -> list[Timeline]:
    """Return the stories of all sagas, after `within` at the latest; `ended` is told each one that has ended."""
    import asyncio

    from toolkit.client.timelines import timelines_of
    from toolkit.protocol.timeline import Timeline

    async def told(ids: Sequence[str]) -> list[Timeline]:
        return await timelines_of([(saga_type, saga_id) for saga_id in ids], sources)

    running, done = list(saga_ids), dict[str, Timeline]()
    until = time.monotonic() + within.total_seconds()
    while running and (began := time.monotonic()) < until:
        for timeline in await told(running[:_AT_ONCE]):
            if timeline.state and timeline.state.is_ended:
                done[timeline.saga_id] = timeline
                running.remove(timeline.saga_id)
                ended(timeline)
        await asyncio.sleep(_pause(began, until) if running else 0)
    done |= {timeline.saga_id: timeline for timeline in await told(running)}
    return [done[saga_id] for saga_id in saga_ids]


def _pause(began: float, until: float) -> float:
    """Return how long to leave the services alone after a round that began then; never beyond the end."""
    now = time.monotonic()
    return min(max(_PAUSE, (now - began) * _PAUSE_IN_ROUNDS), max(until - now, 0))


@contextmanager
def counting() -> Iterator[Callable[[str, int], None]]:
    """Show on standard error how far something has come; yields what is to be told of each bit, by its name."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.completed:,.0f} {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

        def told(what: str, more: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=None)
            bar.advance(tasks[what], more)

        yield told


def progress() -> Progress:
    """Return a progress bar on standard error, for a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
