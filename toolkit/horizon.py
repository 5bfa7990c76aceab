"""The horizon: what is pruned from the saga log, and how far back the log can be trusted to know every saga since.

The fence is the log, so what was pruned is fenced no more. A message from beyond the horizon, of a saga that the log
does not know, may be a duplicate of one that was handled: it is never run, however late it comes.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, Integer, Table, and_, delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.database import UtcDateTime, insert_into, metadata
from toolkit.events import SagaState
from toolkit.saga_log import saga_log

#: One row: sagas whose last entry is of that time or earlier may have been pruned.
pruned = Table(
    "pruned", metadata, Column("id", Integer, primary_key=True), Column("until", UtcDateTime, nullable=False)
)

#: How far the clock of who emitted an event may be ahead of this service's.
_SKEW = timedelta(hours=1)
_ENDED = (SagaState.COMPLETED.value, SagaState.FAILED.value)


async def prune(connection: AsyncConnection, *, before: datetime, most: int) -> list[str]:
    """Delete the entries of up to so many sagas that have ended and were not touched since, and move the horizon.

    The index on time finds the oldest ends, the one on sagas what belongs to them; return the sagas' ids.
    """
    later = saga_log.alias()
    was_touched = exists().where(later.c.saga_id == saga_log.c.saga_id, later.c.at > before)
    ends = select(saga_log.c.saga_id).where(saga_log.c.at <= before, saga_log.c.saga_state.in_(_ENDED), ~was_touched)
    saga_ids = sorted(set((await connection.execute(ends.order_by(saga_log.c.at).limit(most))).scalars()))
    if saga_ids:
        await connection.execute(delete(saga_log).where(saga_log.c.saga_id.in_(saga_ids)))
        await _move(connection, before)
    return saga_ids


async def reached(connection: AsyncConnection) -> datetime | None:
    """Return where the horizon stands: what is not younger may be missing; None where nothing was ever pruned."""
    until: datetime | None = await connection.scalar(select(pruned.c.until))
    return until


async def is_beyond(connection: AsyncConnection, moment: datetime) -> bool:
    """Whether an event of that moment may belong to a saga that was pruned."""
    until = await reached(connection)
    return until is not None and moment <= until + _SKEW


def is_open(saga_id: Any) -> ColumnElement[bool]:
    """Return the condition that the saga with this id, a column of another table, is known here and has not ended."""
    of_saga = saga_log.c.saga_id == saga_id
    return and_(exists().where(of_saga), ~exists().where(of_saga, saga_log.c.saga_state.in_(_ENDED)))


async def _move(connection: AsyncConnection, until: datetime) -> None:
    """Move the horizon on to this moment; never back."""
    await connection.execute(insert_into(pruned, connection).values(id=1, until=until).on_conflict_do_nothing())
    await connection.execute(update(pruned).where(pruned.c.until < until).values(until=until))
