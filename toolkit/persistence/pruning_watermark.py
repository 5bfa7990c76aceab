"""Pruning of the saga log, and the watermark: the log has every saga that moved after it.

The log is the fence, so a pruned saga is not fenced any more. A message from before the watermark, of a saga that the
log does not have, may be a duplicate of a handled one: it never runs.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter

from sqlalchemy import Column, ColumnElement, Integer, Table, and_, delete, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaState
from toolkit.persistence.saga_log import is_same_saga, saga_log
from toolkit.persistence.schema import UtcDateTime, insert_into, metadata
from toolkit.protocol.keys import SagaKey

#: One row: sagas whose last entry is of that time or earlier may have been pruned.
pruned = Table(
    "saga_pruned", metadata, Column("id", Integer, primary_key=True), Column("until", UtcDateTime, nullable=False)
)

#: How far the clock of an event's emitter may be ahead of this service's clock.
_SKEW = timedelta(hours=1)
_ENDED = (SagaState.COMPLETED.value, SagaState.FAILED.value)


async def prune(connection: AsyncConnection, *, before: datetime, most: int) -> list[SagaKey]:
    """Delete the entries of up to `most` sagas that ended and did not move after `before`; return the sagas.

    The watermark advances to `before`. The index on time finds the oldest ends, the one on sagas their entries.
    """
    later = saga_log.alias()
    was_touched = exists().where(is_same_saga(later), later.c.at > before)
    ends = select(saga_log.c.saga_type, saga_log.c.saga_id).where(
        saga_log.c.at <= before, saga_log.c.saga_state.in_(_ENDED), ~was_touched
    )
    rows = await connection.execute(ends.order_by(saga_log.c.at).limit(most))
    sagas = sorted({(row.saga_type, row.saga_id) for row in rows})
    for saga_type, of_type in groupby(sagas, key=itemgetter(0)):
        saga_ids = [saga_id for _, saga_id in of_type]
        own = and_(saga_log.c.saga_id.in_(saga_ids), saga_log.c.saga_type == saga_type)
        await connection.execute(delete(saga_log).where(own))
    if sagas:
        await _advance(connection, before)
    return sagas


async def reached(connection: AsyncConnection) -> datetime | None:
    """Return the watermark: older entries may be missing; None where nothing was ever pruned."""
    until: datetime | None = await connection.scalar(select(pruned.c.until))
    return until


def is_beyond(until: datetime | None, moment: datetime) -> bool:
    """Whether an event of that moment may belong to a pruned saga, where the watermark is at `until`."""
    return until is not None and moment <= until + _SKEW


def is_open(saga_id: ColumnElement[str], saga_type: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a saga, named by columns of another table, is known here and has not ended.

    Where they name no type, any open saga with that id fulfils it.
    """
    end = saga_log.alias()
    of_saga = and_(saga_log.c.saga_id == saga_id, or_(saga_type.is_(None), saga_log.c.saga_type == saga_type))
    has_ended = exists().where(is_same_saga(end), end.c.saga_state.in_(_ENDED))
    return exists().where(of_saga, ~has_ended)


async def _advance(connection: AsyncConnection, until: datetime) -> None:
    """Advance the watermark to this moment; it never goes back."""
    await connection.execute(insert_into(pruned, connection).values(id=1, until=until).on_conflict_do_nothing())
    await connection.execute(update(pruned).where(pruned.c.until < until).values(until=until))
