"""The outbox: all that leaves a service, committed together with what caused it.

A row is deleted only after the broker's positive confirm. `due_at` is both the time of a delayed message and the
lease of a claimed one: whoever claims a row moves it into the future, and if he dies it comes due again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    bindparam,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.messaging.envelope import ATTEMPT, SAGA_TYPE, WireMessage
from toolkit.persistence.id_lists import OneOf
from toolkit.persistence.schema import UtcDateTime, metadata
from toolkit.persistence.unreadable_rows import REST, headers_of, readable

outbox = Table(
    "outbox",
    metadata,
    Column("id", String, primary_key=True),
    Column("message_id", String, nullable=False),
    Column("saga_id", String, nullable=False),
    Column("event_type", String, nullable=False),
    Column("routing_key", String, nullable=False),
    Column("destination", String),
    Column("occurred_at", UtcDateTime, nullable=False),
    Column("headers", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("optional", Integer, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("tries", Integer, nullable=False),
    Index("outbox_by_due", "due_at"),
)

_LISTED = ("id", "message_id", "event_type", "saga_id", "occurred_at", "due_at", "tries", "destination", "headers")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A message on its way out.

    - `destination`: the service's own queue for what it sends to itself; None for the exchange of all.
    - `optional`: it may go unheard.
    - `tries`: how often it was sent without a confirm.
    """

    id: str
    message: WireMessage
    due_at: datetime
    destination: str | None = None
    optional: bool = False
    tries: int = 0


_ADD = {
    "sqlite": sqlite.insert(outbox).on_conflict_do_nothing(index_elements=["id"]),
    "postgresql": postgresql.insert(outbox).on_conflict_do_nothing(index_elements=["id"]),
}
_DELETE = delete(outbox).where(OneOf(outbox.c.id, "ids"))
_RETURN = (
    update(outbox).where(outbox.c.id == bindparam("row_id")).values(due_at=bindparam("until"), tries=outbox.c.tries + 1)
)
# A claim is a move of due_at, not a lock: no row lock is held while a message is published.
_DUE = (
    select(outbox.c.id)
    .where(outbox.c.due_at <= bindparam("now"))
    .order_by(outbox.c.due_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(outbox).where(outbox.c.id.in_(_DUE.scalar_subquery())).values(due_at=bindparam("until")).returning(*outbox.c)
)


async def add(connection: AsyncConnection, rows: Sequence[OutboxRow]) -> None:
    """Add rows in one statement; a row that is there already stays as it is."""
    if rows:
        await connection.execute(_ADD[connection.dialect.name], [_values(row) for row in rows])


async def claim(connection: AsyncConnection, *, now: datetime, until: datetime, most: int) -> list[OutboxRow]:
    """Take up to so many due rows, so that no other relay takes them before `until`; one that can't be read rests."""
    result = await connection.execute(_CLAIM, {"now": now, "until": until, "most": most})
    rows, broken = readable("outbox", result, _row)
    for row in broken:
        await put_back(connection, row.id, until=now + REST)
    return rows


async def delete_sent(connection: AsyncConnection, ids: Collection[str]) -> None:
    """Delete rows whose messages the broker has confirmed."""
    await connection.execute(_DELETE, {"ids": list(ids)})


async def put_back(connection: AsyncConnection, row_id: str, *, until: datetime) -> None:
    """Count a try without a confirm, and have the row come due again."""
    await connection.execute(_RETURN, {"row_id": row_id, "until": until})


async def count(connection: AsyncConnection) -> int:
    """Return how many rows have not been confirmed yet."""
    return int(await connection.scalar(select(func.count()).select_from(outbox)) or 0)


async def message_ids(connection: AsyncConnection) -> set[str]:
    """Return the ids of all messages that have not been confirmed yet."""
    return set((await connection.execute(select(outbox.c.message_id))).scalars())


async def listed(
    connection: AsyncConnection, *, saga_id: str | None = None, limit: int = 100, after: str = ""
) -> list[dict[str, Any]]:
    """Return rows without their messages, in the order of their ids, which is nearly that of their age.

    By a saga's id, of whatever type, it reads all of them: at rest there are none, and whoever adds them shall not pay
    for an index.
    """
    query = select(*(outbox.c[name] for name in _LISTED)).where(outbox.c.id > after)
    query = query if saga_id is None else query.where(outbox.c.saga_id == saga_id)
    return [_shown(row) for row in await connection.execute(query.order_by(outbox.c.id).limit(limit))]


async def backlog(connection: AsyncConnection) -> tuple[int, datetime | None]:
    """Return how many rows have not been confirmed yet, and when the oldest of their events occurred."""
    row = (await connection.execute(select(func.count(), func.min(outbox.c.occurred_at)).select_from(outbox))).one()
    return int(row[0]), row[1]


def _shown(row: Row[Any]) -> dict[str, Any]:
    try:
        headers = headers_of(row.headers)
    except ValueError:  # it is listed all the same: whoever mends it looks for it here
        headers = {ATTEMPT: None}
    return {
        "id": row.id,
        "event_id": row.message_id,
        "event_type": row.event_type,
        "saga_type": headers.get(SAGA_TYPE),
        "saga_id": row.saga_id or None,
        "occurred_at": row.occurred_at,
        "due_at": row.due_at,
        "tries": row.tries,
        "destination": row.destination,
        "attempt": headers.get(ATTEMPT, 1),
    }


async def oldest(connection: AsyncConnection) -> datetime | None:
    """Return when the oldest event was emitted that is still to go out; what a service sends to itself may wait."""
    query = select(func.min(outbox.c.occurred_at)).where(outbox.c.destination.is_(None))
    found: datetime | None = await connection.scalar(query)
    return found


def _values(row: OutboxRow) -> dict[str, Any]:
    message = row.message
    return {
        "id": row.id,
        "message_id": message.message_id,
        "saga_id": message.correlation_id or "",
        "event_type": message.type,
        "routing_key": message.routing_key,
        "destination": row.destination,
        "occurred_at": message.timestamp,
        "headers": json.dumps(dict(message.headers)),
        "body": message.body,
        "optional": int(row.optional),
        "due_at": row.due_at,
        "tries": row.tries,
    }


def _row(row: Row[Any]) -> OutboxRow:
    message = WireMessage(
        body=row.body,
        routing_key=row.routing_key,
        message_id=row.message_id,
        correlation_id=row.saga_id,
        type=row.event_type,
        timestamp=row.occurred_at,
        headers=headers_of(row.headers),
    )
    return OutboxRow(
        id=row.id,
        message=message,
        due_at=row.due_at,
        destination=row.destination,
        optional=bool(row.optional),
        tries=row.tries,
    )
