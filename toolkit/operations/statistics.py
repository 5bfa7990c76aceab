"""The figures of one service, as `Snapshot` has them: read often, and cheap however long the log is.

The sagas are counted once, stretch by stretch, when somebody asks for the first time; from then on only what was
written since is read. What is pruned stays counted until the sagas are counted anew, ten minutes later at most.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.clock import Clock
from toolkit.persistence import dead_letter_queries, outbox, overdue_steps
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import is_outage
from toolkit.persistence.log_deltas import LogDeltas, deltas, last_row, settled_row
from toolkit.tracking.snapshot import Snapshot

log = structlog.get_logger("toolkit")

#: How many rows of the log one statement looks at, so that no statement takes long.
_STRETCH = 20_000
#: How long an answer is given to others who ask, in seconds; some ask each second.
_FRESH = 0.4
#: How long whoever asks waits for the sagas to be counted, in seconds: less than an answer may take.
_PATIENCE = 2.5
#: After how many seconds all is counted anew, in case that anything was missed or pruned; and how many times as long as
#: it took it is let be at least.
_ANEW, _REST = 600.0, 50
#: How far back ends and emissions are told of, and ends for the rate.
_RECENT, _RATED = timedelta(minutes=5), timedelta(minutes=1)


@dataclass(slots=True)
class _Base:
    """All that was counted, up to a row that is settled."""

    until: int = 0
    deltas: LogDeltas = field(default_factory=LogDeltas)
    anew_at: float = 0.0


class Statistics:
    """Reads one service's figures, and remembers what need not be read again."""

    def __init__(self, service: str, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._base: _Base | None = None
        self._counting: asyncio.Task[_Base] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._last: tuple[float, Snapshot] | None = None

    async def snapshot(self, database: Database, ready: Mapping[str, bool]) -> Snapshot:
        """Return the figures as they are now, or were a moment ago."""
        async with self._one_at_a_time:
            if self._last is None or time.monotonic() - self._last[0] > _FRESH:
                snapshot = await self._look(database)
                self._last = time.monotonic(), snapshot
            return self._last[1].model_copy(update={"ready": dict(ready)})

    async def _look(self, database: Database) -> Snapshot:
        base = await self._counted(database)
        now = self._clock.now()
        async with database.reading() as connection:
            told = await self._up_to_now(connection, base, now) if base else LogDeltas()
            rows, oldest = await outbox.backlog(connection)
            return Snapshot(
                service=self._service,
                at=now,
                is_counted=base is not None,
                by_state=_by_state(told.counts),
                by_type=_by_type(told.counts),
                rate=sum(at > now - _RATED for at, _ in told.ends) / _RATED.total_seconds(),
                p95=_p95([took.total_seconds() for at, took in told.ends if at > now - _RECENT]),
                overdue=await overdue_steps.count(connection),
                dead_letters=await dead_letter_queries.count(connection),
                outbox=rows,
                outbox_oldest=max((now - oldest).total_seconds(), 0.0) if oldest else None,
                edges=_edges(told.emitted_events, now),
                ready={},
            )

    async def _up_to_now(self, connection: AsyncConnection, base: _Base, now: datetime) -> LogDeltas:
        """Return all moves, and take those that are settled into the base."""
        last = await last_row(connection)
        if last < base.until:
            self._base = None  # the log's end was taken away, by hand or by pruning: count anew the next time
        settled = await settled_row(connection, now=now)
        base.deltas.forget(now - _RECENT)
        while base.until < settled:
            await _advance(connection, base, settled, now)
        told = await deltas(connection, after=base.until, until=last, since=now - _RECENT)
        told.add(base.deltas)
        return told

    async def _counted(self, database: Database) -> _Base | None:
        """Return what was counted, and see that it is counted anew in time; None where that takes too long."""
        is_old = self._base is not None and time.monotonic() > self._base.anew_at
        if self._counting is None and (self._base is None or is_old):
            self._counting = asyncio.create_task(self._count(database, is_urgent=self._base is None))
        if self._base is None and self._counting:
            await asyncio.wait({self._counting}, timeout=_PATIENCE)
        if self._counting and self._counting.done():
            counting, self._counting = self._counting, None
            try:
                self._base = counting.result()
            except Exception as error:
                if not is_outage(error) or self._base is None:
                    raise
                log.warning("sagas could not be counted anew; it is tried again", error=str(error))
        return self._base

    async def _count(self, database: Database, *, is_urgent: bool) -> _Base:
        base, began = _Base(), time.monotonic()
        async with database.reading() as connection:
            settled = await settled_row(connection, now=self._clock.now())
        while base.until < settled:
            step_began = time.monotonic()
            async with database.reading() as connection:
                await _advance(connection, base, settled, self._clock.now())
            if not is_urgent:  # leave the database to the steps for as long
                await asyncio.sleep(time.monotonic() - step_began)
        base.anew_at = time.monotonic() + max(_ANEW, _REST * (time.monotonic() - began))
        return base


async def _advance(connection: AsyncConnection, base: _Base, settled: int, now: datetime) -> None:
    """Take the next stretch of the log into the base."""
    until = min(base.until + _STRETCH, settled)
    base.deltas.add(await deltas(connection, after=base.until, until=until, since=now - _RECENT))
    base.until = until


def _by_state(counts: Counter[tuple[str, str]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for (_, state), count in counts.items():
        total[state] += count
    return {state: count for state, count in sorted(total.items()) if count > 0}


def _by_type(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (saga_type, state), count in sorted(counts.items()):
        if count > 0:
            found.setdefault(saga_type, {})[state] = count
    return found


def _p95(seconds: list[float]) -> float | None:
    return sorted(seconds)[max(-(-len(seconds) * 95 // 100) - 1, 0)] if seconds else None


def _edges(emitted_events: Counter[tuple[int, str]], now: datetime) -> dict[str, int]:
    total: Counter[str] = Counter()
    for (second, event), count in emitted_events.items():
        if datetime.fromtimestamp(second, UTC) > now - _RECENT:
            total[event] += count
    return dict(sorted(total.items()))
