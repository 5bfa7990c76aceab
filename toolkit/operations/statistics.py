"""The statistics of one service for a `Snapshot`, with bounded work per read, however long the log is.

The first read counts the sagas in parts of the log; later ones read the entries since. Pruned sagas stay counted until
the next full count, at most ten minutes later.
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

#: How many rows of the log one statement reads, so that none takes long.
_PART = 20_000
#: How long a snapshot is reused, in seconds; some clients read each second.
_FRESH = 0.4
#: How long a read waits for the first count, in seconds: less than the API's time limit.
_PATIENCE = 2.5
#: Seconds between full counts, which correct what was missed or pruned; and the least multiple of a count's duration
#: between two.
_RECOUNT, _REST = 600.0, 50
#: The period of ends and emitted events, and that of the rate.
_RECENT, _RATED = timedelta(minutes=5), timedelta(minutes=1)


@dataclass(slots=True)
class _Base:
    """The counts up to a settled row."""

    until: int = 0
    deltas: LogDeltas = field(default_factory=LogDeltas)
    recount_at: float = 0.0


class Statistics:
    """Reads one service's statistics, and keeps the counts of settled rows."""

    def __init__(self, service: str, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._base: _Base | None = None
        self._counting: asyncio.Task[_Base] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._last: tuple[float, Snapshot] | None = None

    async def snapshot(self, database: Database, ready: Mapping[str, bool]) -> Snapshot:
        """Return a snapshot, at most 0.4 seconds old."""
        async with self._one_at_a_time:
            if self._last is None or time.monotonic() - self._last[0] > _FRESH:
                snapshot = await self._look(database)
                self._last = time.monotonic(), snapshot
            return self._last[1].model_copy(update={"ready": dict(ready)})

    async def _look(self, database: Database) -> Snapshot:
        base = await self._counted(database)
        now = self._clock.now()
        async with database.reading() as connection:
            found = await self._up_to_now(connection, base, now) if base else LogDeltas()
            rows, oldest = await outbox.backlog(connection)
            return Snapshot(
                service=self._service,
                at=now,
                is_counted=base is not None,
                by_state=_by_state(found.counts),
                by_type=_by_type(found.counts),
                rate=sum(at > now - _RATED for at, _ in found.ends) / _RATED.total_seconds(),
                p95=_p95([took.total_seconds() for at, took in found.ends if at > now - _RECENT]),
                overdue=await overdue_steps.count(connection),
                dead_letters=await dead_letter_queries.count(connection),
                outbox=rows,
                outbox_oldest=max((now - oldest).total_seconds(), 0.0) if oldest else None,
                edges=_edges(found.emitted_events, now),
                ready={},
            )

    async def _up_to_now(self, connection: AsyncConnection, base: _Base, now: datetime) -> LogDeltas:
        """Return all deltas, and move the settled ones into the base."""
        last = await last_row(connection)
        if last < base.until:
            self._base = None  # the log's last rows were deleted, by hand or by pruning: the next read counts all again
        settled = await settled_row(connection, now=now)
        base.deltas.forget(now - _RECENT)
        while base.until < settled:
            await _advance(connection, base, settled, now)
        found = await deltas(connection, after=base.until, until=last, since=now - _RECENT)
        found.add(base.deltas)
        return found

    async def _counted(self, database: Database) -> _Base | None:
        """Return the base, and start a full count when it is due; None while the first count takes too long."""
        is_old = self._base is not None and time.monotonic() > self._base.recount_at
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
                log.warning("sagas could not be recounted; the next read retries", error=str(error))
        return self._base

    async def _count(self, database: Database, *, is_urgent: bool) -> _Base:
        base, began = _Base(), time.monotonic()
        async with database.reading() as connection:
            settled = await settled_row(connection, now=self._clock.now())
        while base.until < settled:
            step_began = time.monotonic()
            async with database.reading() as connection:
                await _advance(connection, base, settled, self._clock.now())
            if not is_urgent:  # leave the database to the steps for the same time
                await asyncio.sleep(time.monotonic() - step_began)
        base.recount_at = time.monotonic() + max(_RECOUNT, _REST * (time.monotonic() - began))
        return base


async def _advance(connection: AsyncConnection, base: _Base, settled: int, now: datetime) -> None:
    """Add the next part of the log to the base."""
    until = min(base.until + _PART, settled)
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
