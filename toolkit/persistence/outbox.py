"""The outbox: every message that a service sends, committed together with the change that caused it.

A row is deleted only after the broker's positive confirm. `due_at` is both the time of a delayed message and the
lease of a claimed one: a relay claims a row by moving it into the future; if the relay dies, the row is due again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import Event
from toolkit.messaging.envelope import ATTEMPT, SAGA_TYPE, WireMessage
from toolkit.persistence.schema import Key, UtcDateTime, metadata
from toolkit.persistence.unreadable_rows import REST, headers_of, readable
from toolkit.protocol.keys import TIMER
from toolkit.protocol.pending_rows import UnsentMessage

outbox = Table(
    "saga_outbox",
    metadata,
    Column("id", Key, primary_key=True),
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
    Index("saga_outbox_by_due", "due_at"),
)

_LISTED = ("id", "message_id", "event_type", "saga_id", "occurred_at", "due_at", "tries", "destination", "headers")


@dataclass(slots=True, kw_only=True)  # not frozen, as little as messages are: it costs three times as much
class OutboxRow:
    """An outgoing message.

    - `destination`: the service's own queue for a message to itself; None for the common exchange.
    - `optional`: it needs no consumer.
    - `tries`: how often the broker returned it, or its row could not be read.
    """

    id: str
    message: WireMessage
    due_at: datetime
    destination: str | None = None
    optional: bool = False
    tries: int = 0


def event_row(message: WireMessage, event_type: type[Event], *, due_at: datetime) -> OutboxRow:
    """Return the row of an event to the common exchange: the same event twice is one row while the first is unsent."""
    assert message.message_id is not None  # noqa: S101 -- for the type checker; an envelope has an id
    return OutboxRow(id=message.message_id, message=message, due_at=due_at, optional=event_type.__optional__)


_NO_TIMER = outbox.c.id.not_like(f"{TIMER}%")
_ADD = {
    "sqlite": sqlite.insert(outbox).on_conflict_do_nothing(index_elements=["id"]),
    "postgresql": postgresql.insert(outbox).on_conflict_do_nothing(index_elements=["id"]),
}
_RETURN = (
    update(outbox).where(outbox.c.id == bindparam("row_id")).values(due_at=bindparam("until"), tries=outbox.c.tries + 1)
)
# A claim moves due_at and holds no row lock while a message is published.
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


def values_of(row: OutboxRow) -> dict[str, Any]:
    """Return the row's values, by the table's columns in their order."""
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


async def add(connection: AsyncConnection, rows: Sequence[OutboxRow]) -> None:
    """Insert rows in one statement; an existing row stays as it is."""
    if rows:
        await connection.execute(_ADD[connection.dialect.name], [values_of(row) for row in rows])


async def claim(connection: AsyncConnection, *, now: datetime, until: datetime, most: int) -> list[OutboxRow]:
    """Claim up to `most` due rows: no other relay claims them before `until`. Unreadable rows are set aside."""
    result = await connection.execute(_CLAIM, {"now": now, "until": until, "most": most})
    rows, broken = readable("saga_outbox", result, _row)
    for row in broken:
        await put_back(connection, row.id, until=now + REST)
    return rows


async def put_back(connection: AsyncConnection, row_id: str, *, until: datetime) -> None:
    """Count a try without a confirm; the row is due again at `until`."""
    await connection.execute(_RETURN, {"row_id": row_id, "until": until})


async def count(connection: AsyncConnection, *, timers_until: datetime | None = None) -> int:
    """Return how many rows are not confirmed yet, without the timers of joins, which wait by design.

    `timers_until`: those that are due by then count, too.
    """
    waiting = _NO_TIMER if timers_until is None else or_(_NO_TIMER, outbox.c.due_at <= timers_until)
    return int(await connection.scalar(select(func.count()).select_from(outbox).where(waiting)) or 0)


async def message_ids(connection: AsyncConnection) -> set[str]:
    """Return the ids of all messages that are not confirmed yet."""
    return set((await connection.execute(select(outbox.c.message_id))).scalars())


async def listed(
    connection: AsyncConnection, *, saga_id: str | None = None, limit: int = 100, after: str = ""
) -> list[UnsentMessage]:
    """Return rows without their messages, in the order of their ids, which is nearly the order of their age.

    A saga's id, of any type, costs a scan: an idle outbox is empty, and an index would slow down every insert.
    """
    query = select(*(outbox.c[name] for name in _LISTED)).where(outbox.c.id > after)
    query = query if saga_id is None else query.where(outbox.c.saga_id == saga_id)
    return [_unsent(row) for row in await connection.execute(query.order_by(outbox.c.id).limit(limit))]


async def backlog(connection: AsyncConnection) -> tuple[int, datetime | None]:
    """Return how many rows are not confirmed yet, and when the oldest of their events occurred, timers left out."""
    query = select(func.count(), func.min(outbox.c.occurred_at)).select_from(outbox).where(_NO_TIMER)
    row = (await connection.execute(query)).one()
    return int(row[0]), row[1]


def _unsent(row: Row[Any]) -> UnsentMessage:
    try:
        headers = headers_of(row.headers)
    except ValueError:  # the row is listed all the same, for the operator who repairs it
        headers = {ATTEMPT: None}
    return UnsentMessage(
        id=row.id,
        event_id=row.message_id,
        event_type=row.event_type,
        saga_type=headers.get(SAGA_TYPE),
        saga_id=row.saga_id or None,
        occurred_at=row.occurred_at,
        due_at=row.due_at,
        tries=row.tries,
        destination=row.destination,
        attempt=headers.get(ATTEMPT, 1),
    )


async def oldest(connection: AsyncConnection) -> datetime | None:
    """Return when the oldest unsent event was emitted; messages to the service itself don't count."""
    query = select(func.min(outbox.c.occurred_at)).where(outbox.c.destination.is_(None))
    found: datetime | None = await connection.scalar(query)
    return found


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
