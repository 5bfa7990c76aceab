"""Queries of dead letters for people and clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.persistence.dead_letters import Selection, dead_letters, headers_or_empty
from toolkit.protocol.dead_letter_rows import DeadLetterSummary, WholeDeadLetter
from toolkit.protocol.rows import field_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many dead letters have one reason and step; `newest` is the id of the newest one."""

    reason: str
    step: str | None
    count: int
    first_at: datetime
    last_at: datetime
    newest: str


async def listed(
    connection: AsyncConnection, which: Selection | None = None, *, limit: int = 100
) -> list[WholeDeadLetter]:
    """Return dead letters, newest first; the body is text, with invalid UTF-8 escaped.

    A message must be redacted before it is shown.
    """
    return [_whole(row) for row in await _newest(connection, WholeDeadLetter, which, limit)]


async def summaries(
    connection: AsyncConnection, which: Selection | None = None, *, limit: int = 100
) -> list[DeadLetterSummary]:
    """Return dead letters without their messages, newest first."""
    rows = await _newest(connection, DeadLetterSummary, which, limit)
    return [DeadLetterSummary.of(row._mapping) for row in rows]


async def bodies(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, bytes]:
    """Return the bodies of these dead letters, by id."""
    rows = await connection.execute(select(dead_letters.c.id, dead_letters.c.body).where(dead_letters.c.id.in_(ids)))
    return {row.id: row.body for row in rows}


async def types(connection: AsyncConnection, which: Selection) -> list[str]:
    """Return the known saga types of the selected dead letters."""
    query = select(dead_letters.c.saga_type).where(which.condition(), dead_letters.c.saga_type.is_not(None))
    return sorted((await connection.execute(query.distinct())).scalars())


async def count(connection: AsyncConnection, which: Selection | None = None) -> int:
    """Return how many dead letters there are, or are selected."""
    query = select(func.count()).select_from(dead_letters).where((which or Selection()).condition())
    return int(await connection.scalar(query) or 0)


async def counts(connection: AsyncConnection) -> list[Count]:
    """Return the number of dead letters by reason and step, the largest first, and their first and last time."""
    table = dead_letters.c
    columns = (
        table.reason,
        table.step,
        func.count().label("count"),
        func.min(table.first_at).label("first_at"),
        func.max(table.last_at).label("last_at"),
        func.max(table.id).label("newest"),
    )
    query = select(*columns).group_by(table.reason, table.step).order_by(func.count().desc(), table.reason, table.step)
    return [Count(**row._mapping) for row in await connection.execute(query)]


async def _newest(
    connection: AsyncConnection, kind: type[DeadLetterSummary], which: Selection | None, limit: int
) -> Sequence[Row[Any]]:
    columns = [dead_letters.c[name] for name in field_names(kind)]
    query = select(*columns).where((which or Selection()).condition())
    return (await connection.execute(query.order_by(dead_letters.c.id.desc()).limit(limit))).all()


def _whole(row: Row[Any]) -> WholeDeadLetter:
    body = row.body.decode(errors="backslashreplace")
    return WholeDeadLetter.of({**row._mapping, "body": body, "headers": headers_or_empty(row.headers)})
