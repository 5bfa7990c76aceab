"""Queries of dead letters for people and clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.persistence.dead_letters import Selection, dead_letters, headers_or_empty

#: The columns of a list, in this order; a whole dead letter holds a message, which must be redacted before it is shown.
SHOWN = (
    "id", "service", "reason", "error", "saga_type", "saga_id", "step", "event_type", "message_id", "routing_key",
    "attempts", "first_at", "last_at",
)  # fmt: skip

#: The columns of a whole dead letter.
_WHOLE = (*SHOWN, "sent_at", "traceback", "headers", "body")


async def listed(
    connection: AsyncConnection, which: Selection | None = None, *, limit: int = 100, whole: bool = True
) -> list[dict[str, Any]]:
    """Return dead letters, newest first; the body is text, with invalid UTF-8 escaped."""
    columns = [dead_letters.c[name] for name in (_WHOLE if whole else SHOWN)]
    query = select(*columns).where((which or Selection()).condition())
    rows = await connection.execute(query.order_by(dead_letters.c.id.desc()).limit(limit))
    return [_shown(row) for row in rows]


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


async def groups(connection: AsyncConnection) -> list[dict[str, Any]]:
    """Return the number of dead letters by reason and step, the largest group first.

    `first_at` and `last_at` bound a group in time; `newest` is the id of its newest dead letter.
    """
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
    return [dict(row._mapping) for row in await connection.execute(query)]


def _shown(row: Row[Any]) -> dict[str, Any]:
    shown = dict(row._mapping)
    if "body" in shown:
        shown |= {"body": row.body.decode(errors="backslashreplace"), "headers": headers_or_empty(row.headers)}
    return shown
