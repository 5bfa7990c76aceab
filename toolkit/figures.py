"""The figures of one service, as `Glance` has them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit import dead_letters, outbox, overdue
from toolkit.clock import Clock
from toolkit.glance import Glance
from toolkit.saga_log import saga_log


class Figures:
    """Reads one service's figures, and remembers what need not be read again."""

    def __init__(self, service: str, clock: Clock) -> None:
        self._service = service
        self._clock = clock

    async def glance(self, connection: AsyncConnection, ready: Mapping[str, bool]) -> Glance:
        """Return the figures as they are now."""
        now = self._clock.now()
        rows, oldest = await outbox.backlog(connection)
        by_type = await self._by_type(connection)
        states = {state for counts in by_type.values() for state in counts}
        return Glance(
            service=self._service,
            at=now,
            by_state={state: sum(counts.get(state, 0) for counts in by_type.values()) for state in sorted(states)},
            by_type=by_type,
            rate=0.0,
            p95=None,
            overdue=await overdue.count(connection),
            dead_letters=await dead_letters.count(connection),
            outbox=rows,
            outbox_oldest=max((now - oldest) / timedelta(seconds=1), 0.0) if oldest else None,
            edges={},
            ready=dict(ready),
        )

    async def _by_type(self, connection: AsyncConnection) -> dict[str, dict[str, int]]:
        last = select(func.max(saga_log.c.id)).group_by(saga_log.c.saga_id)
        query = select(saga_log.c.saga_type, saga_log.c.saga_state, func.count()).where(saga_log.c.id.in_(last))
        found: dict[str, dict[str, Any]] = {}
        for saga_type, state, count in await connection.execute(
            query.group_by(saga_log.c.saga_type, saga_log.c.saga_state)
        ):
            found.setdefault(saga_type, {})[state] = count
        return found
