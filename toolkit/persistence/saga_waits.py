"""Sagas that wait for an answer from outside: until then none of their steps is overdue, in any service."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Column, Index, Table, and_, bindparam, case, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.persistence.schema import Key, UtcDateTime, insert_into, metadata
from toolkit.protocol.keys import SagaKey, StreamKey

#: One row for each question, by the step that asks.
waits = Table(
    "saga_waits",
    metadata,
    Column("saga_type", Key, primary_key=True),
    Column("saga_id", Key, primary_key=True),
    Column("step", Key, primary_key=True),
    Column("until", UtcDateTime, nullable=False),
    Index("saga_waits_by_until", "until"),
)


async def hold(connection: AsyncConnection, question: StreamKey, until: datetime) -> None:
    """Record until when a saga waits; the earlier moment counts, since its end may arrive before its beginning."""
    key = dict(zip(("saga_type", "saga_id", "step"), question, strict=True))
    new = insert_into(waits, connection).values(**key, until=until)
    earlier = case((new.excluded.until < waits.c.until, new.excluded.until), else_=waits.c.until)
    await connection.execute(new.on_conflict_do_update(index_elements=list(key), set_={"until": earlier}))


async def waiting(connection: AsyncConnection, sagas: Sequence[SagaKey], *, now: datetime) -> set[SagaKey]:
    """Return those of these sagas that wait."""
    ids = sorted({saga_id for _, saga_id in sagas})
    if not ids:
        return set()
    query = select(waits.c.saga_type, waits.c.saga_id).where(waits.c.saga_id.in_(ids), waits.c.until > now)
    return {(row.saga_type, row.saga_id) for row in await connection.execute(query)} & set(sagas)


async def take_over(connection: AsyncConnection, *, before: datetime) -> dict[SagaKey, datetime]:
    """Delete the waits of sagas that have gone on since `before` at the latest; return since when, by saga."""
    query = select(waits.c.saga_type, waits.c.saga_id, func.max(waits.c.until).label("until"))
    over = query.group_by(waits.c.saga_type, waits.c.saga_id).having(func.max(waits.c.until) <= before).limit(_AT_ONCE)
    gone_on = {(row.saga_type, row.saga_id): row.until for row in await connection.execute(over)}
    await forget_sagas(connection, list(gone_on))
    return gone_on


async def forget_sagas(connection: AsyncConnection, sagas: Sequence[SagaKey]) -> None:
    """Delete the waits of these sagas."""
    if sagas:
        of_saga = and_(waits.c.saga_type == bindparam("of_type"), waits.c.saga_id == bindparam("of_saga"))
        known = [{"of_type": saga_type, "of_saga": saga_id} for saga_type, saga_id in sagas]
        await connection.execute(delete(waits).where(of_saga), known)


#: How many sagas one sweep takes over at most; the next sweep takes the rest.
_AT_ONCE = 500
