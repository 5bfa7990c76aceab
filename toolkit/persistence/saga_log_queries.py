"""Queries of the saga log for people and clients."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaState
from toolkit.persistence.saga_log import ARRIVAL_FIELDS, ArrivalEntry, of, saga_log
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.rows import Row, field_names, member_or_text

#: The columns of an entry in a list, in this order.
SHOWN = field_names(LogEntry)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSaga(Row):
    """A saga by its entries in this service; `step` is the one of the last entry, `at` its time."""

    conversions: ClassVar = {"state": member_or_text(SagaState)}

    saga_id: str
    saga_type: str
    state: SagaState
    step: str
    started_at: datetime
    at: datetime


async def entries(
    connection: AsyncConnection, *, saga_id: str | None = None, saga_type: str | None = None, limit: int | None = None
) -> list[LogEntry]:
    """Return entries, oldest first; with a limit, only the newest ones."""
    query = select(saga_log.c.id, *(saga_log.c[name] for name in SHOWN)).order_by(saga_log.c.id.desc())
    if saga_id is not None:
        query = query.where(of(saga_id, saga_type))
    if limit is not None:
        query = query.limit(limit)
    rows = (await connection.execute(query)).all()
    return [LogEntry.of(row._mapping) for row in reversed(rows)]


async def timeline(connection: AsyncConnection, saga_id: str, saga_type: str | None = None) -> list[ArrivalEntry]:
    """Return one saga's entries with all columns, oldest first; their bodies are not redacted yet.

    Without a type, the entries of all sagas with this id.
    """
    query = select(*(saga_log.c[name] for name in ARRIVAL_FIELDS)).where(of(saga_id, saga_type)).order_by(saga_log.c.id)
    return [ArrivalEntry(**row._mapping) for row in await connection.execute(query)]


async def page(connection: AsyncConnection, *, after: int, limit: int) -> tuple[list[LogEntry], int | None]:
    """Return up to `limit` entries after row `after`, and the row to continue after; None at the end."""
    query = select(saga_log.c.id, *(saga_log.c[name] for name in SHOWN)).where(saga_log.c.id > after)
    rows = (await connection.execute(query.order_by(saga_log.c.id).limit(limit))).all()
    return [LogEntry.of(row._mapping) for row in rows], rows[-1].id if len(rows) == limit else None


async def since(
    connection: AsyncConnection,
    *,
    after: int | None,
    limit: int,
    saga_id: str | None = None,
    saga_type: str | None = None,
) -> tuple[list[LogEntry], int]:
    """Return up to `limit` entries after row `after`, or the newest ones, oldest first; and the row of the last one.

    A saga's id, and its type, narrow them to that saga. Without entries, the row is `after`.
    """
    query = select(saga_log.c.id, *(saga_log.c[name] for name in SHOWN)).limit(limit)
    query = query if saga_id is None else query.where(of(saga_id, saga_type))
    if after is None:
        rows = list(reversed((await connection.execute(query.order_by(saga_log.c.id.desc()))).all()))
    else:
        rows = list((await connection.execute(query.where(saga_log.c.id > after).order_by(saga_log.c.id))).all())
    return [LogEntry.of(row._mapping) for row in rows], rows[-1].id if rows else after or 0


async def sagas(connection: AsyncConnection, *, state: SagaState | None = None, limit: int = 100) -> list[ListedSaga]:
    """Return this service's sagas, the last moved first."""
    spans = (
        select(func.max(saga_log.c.id).label("last_id"), func.min(saga_log.c.at).label("started_at"))
        .group_by(saga_log.c.saga_type, saga_log.c.saga_id)
        .subquery()
    )
    query = (
        select(
            saga_log.c.saga_id,
            saga_log.c.saga_type,
            saga_log.c.saga_state.label("state"),
            saga_log.c.step,
            spans.c.started_at,
            saga_log.c.at,
        )
        .join(spans, saga_log.c.id == spans.c.last_id)
        .order_by(saga_log.c.id.desc())
        .limit(limit)
    )
    if state is not None:
        query = query.where(saga_log.c.saga_state == state.value)
    return [ListedSaga.of(row._mapping) for row in await connection.execute(query)]
