"""Overdue steps: steps of this service in sagas that should have ended and have not.

`overdue_search` finds them. A row is deleted when its step moves or its saga ends; the remaining ones are nudged, or
need an operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Index, Integer, Row, String, Table, and_, bindparam, delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaState
from toolkit.persistence.schema import Key, UtcDateTime, metadata
from toolkit.persistence.unreadable_rows import REST, readable
from toolkit.protocol.fence import StepState
from toolkit.protocol.keys import SagaKey
from toolkit.protocol.pending_rows import OverdueStep

overdue = Table(
    "saga_overdue",
    metadata,
    Column("saga_type", Key, primary_key=True),
    Column("saga_id", Key, primary_key=True),
    Column("step", Key, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("saga_state", String, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("next_at", UtcDateTime, nullable=False),
    Column("nudges", Integer, nullable=False),
    Column("aborted", Integer, nullable=False),
    Index("saga_overdue_by_saga", "saga_id"),
    Index("saga_overdue_by_next", "next_at"),
)

#: How many steps one sweep nudges at most; the next sweep takes the rest.
_AT_ONCE = 500


async def claim(connection: AsyncConnection, *, now: datetime, until: datetime) -> list[OverdueStep]:
    """Claim the steps whose next nudge is due: no other replica nudges them before `until`."""
    key = (overdue.c.saga_type, overdue.c.saga_id, overdue.c.step)
    due = select(*key).where(overdue.c.next_at <= now).limit(_AT_ONCE)
    taken = update(overdue).where(tuple_(*key).in_(due.with_for_update(skip_locked=True)))
    rows = await connection.execute(taken.values(next_at=until, nudges=overdue.c.nudges + 1).returning(*overdue.c))
    steps, broken = readable("saga_overdue", rows, _step)
    for row in broken:
        await connection.execute(update(overdue).where(_is_one).values(next_at=now + REST), _key(row))
    return steps


async def postpone(connection: AsyncConnection, steps: Sequence[OverdueStep], until: Sequence[datetime]) -> None:
    """Set the time of each step's next nudge."""
    if steps:
        statement = update(overdue).where(_is_one).values(next_at=bindparam("until", type_=UtcDateTime()))
        moments = zip(steps, until, strict=True)
        await connection.execute(statement, [_key(step) | {"until": moment} for step, moment in moments])


async def mark_aborted(connection: AsyncConnection, steps: Sequence[OverdueStep]) -> None:
    """Record that an abort was sent to these steps' sagas."""
    if steps:
        statement = update(overdue).where(_is_one).values(aborted=1)
        await connection.execute(statement, [_key(step) for step in steps])


async def forget(connection: AsyncConnection, steps: Sequence[OverdueStep]) -> None:
    """Delete steps that moved, or whose sagas ended."""
    if steps:
        await connection.execute(delete(overdue).where(_is_one), [_key(step) for step in steps])


async def forget_sagas(connection: AsyncConnection, sagas: Sequence[SagaKey]) -> None:
    """Delete the steps of these sagas."""
    if sagas:
        of_saga = and_(overdue.c.saga_type == bindparam("of_type"), overdue.c.saga_id == bindparam("of_saga"))
        known = [{"of_type": saga_type, "of_saga": saga_id} for saga_type, saga_id in sagas]
        await connection.execute(delete(overdue).where(of_saga), known)


async def count(connection: AsyncConnection) -> int:
    """Return how many steps are overdue."""
    return int(await connection.scalar(select(func.count()).select_from(overdue)) or 0)


async def sagas_by_state(connection: AsyncConnection) -> list[tuple[str, SagaState, int]]:
    """Return how many sagas have an overdue step here, by their type and state."""
    query = select(overdue.c.saga_type, overdue.c.saga_state, func.count(overdue.c.saga_id.distinct()))
    rows = await connection.execute(query.group_by(overdue.c.saga_type, overdue.c.saga_state))
    known = set(SagaState)  # the watchdog sets rows with another state aside
    return [(saga_type, SagaState(state), sagas) for saga_type, state, sagas in rows if state in known]


async def listed(connection: AsyncConnection, *, saga_id: str | None = None, limit: int = 1000) -> list[OverdueStep]:
    """Return overdue steps, the longest waiting first; with a saga id, those of all sagas with it."""
    query = select(overdue) if saga_id is None else select(overdue).where(overdue.c.saga_id == saga_id)
    rows = await connection.execute(query.order_by(overdue.c.since).limit(limit))
    return readable("saga_overdue", rows, _step)[0]


_is_one = and_(
    overdue.c.saga_type == bindparam("of_type"),
    overdue.c.saga_id == bindparam("of_saga"),
    overdue.c.step == bindparam("of_step"),
)


def _key(step: OverdueStep | Row[Any]) -> dict[str, str]:
    return {"of_type": step.saga_type, "of_saga": step.saga_id, "of_step": step.step}


def _step(row: Row[Any]) -> OverdueStep:
    return OverdueStep(
        saga_id=row.saga_id,
        step=row.step,
        saga_type=row.saga_type,
        position=row.position,
        state=StepState(row.state),
        saga_state=SagaState(row.saga_state),
        since=row.since,
        nudges=row.nudges,
        aborted=bool(row.aborted),
    )
