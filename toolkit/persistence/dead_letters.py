"""Dead letters: messages that could not be handled, kept whole, with the reason, until an operator acts.

A message that is dead-lettered again for the same reason increments one dead letter's count. The operator who deletes
a dead letter owns it: if two redrive it at once, one of them finds it gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import (
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    and_,
    delete,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.ids import trace_facts
from toolkit.messaging.envelope import SAGA_TYPE, TRACEPARENT, WireMessage
from toolkit.persistence.schema import Key, UtcDateTime, insert_into, metadata
from toolkit.persistence.unreadable_rows import headers_of

log = structlog.get_logger("toolkit")

dead_letters = Table(
    "saga_dead_letters",
    metadata,
    Column("id", String, primary_key=True),
    Column("service", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("error", Text, nullable=False),
    Column("traceback", Text),
    Column("saga_type", Key),
    Column("saga_id", Key),
    Column("step", Key),
    Column("event_type", String),
    Column("message_id", String),
    Column("routing_key", String, nullable=False),
    Column("sent_at", UtcDateTime),
    Column("headers", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("first_at", UtcDateTime, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
    Column("fingerprint", String, nullable=False, unique=True),
    Index("saga_dead_letters_by_saga", "saga_id"),
    Index("saga_dead_letters_by_time", "last_at"),
)

#: No saga's type is longer; the header of an unknown sender is cut to it.
_LONGEST_TYPE = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One dead-lettered message, as received; `reason` is a short, stable word, `error` the full text.

    `at` is when it was last dead-lettered, `first_at` when it first was. Without a `saga_type`, the type that the
    message names applies, if any.
    """

    id: str
    service: str
    reason: str
    error: str
    message: WireMessage
    at: datetime
    saga_type: str | None = None
    step: str | None = None
    attempts: int = 1
    traceback: str | None = None
    first_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A filter of dead letters: those that meet all conditions; without conditions, all of them.

    - `saga_type`: narrows `saga_id` to one type; without it, all sagas with that id are selected.
    - `before`: last dead-lettered at that time or earlier.
    - `up_to`: no dead letter newer than the one with this id. It bounds work done in several batches: what the first
      batch redrives may be dead-lettered again before the last.
    """

    ids: tuple[str, ...] = ()
    reason: str | None = None
    step: str | None = None
    saga_id: str | None = None
    saga_type: str | None = None
    before: datetime | None = None
    up_to: str | None = None

    def condition(self) -> ColumnElement[bool]:
        """Return the filter as an SQL condition."""
        table = dead_letters.c
        names = ("reason", "step", "saga_id", "saga_type")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        conditions = [table[name] == value for name, value in given.items()]
        conditions += [table.id.in_(self.ids)] if self.ids else []
        conditions += [table.last_at <= self.before] if self.before else []
        conditions += [table.id <= self.up_to] if self.up_to else []
        return and_(true(), *conditions)


async def add(connection: AsyncConnection, added: Sequence[DeadLetter]) -> None:
    """Insert dead letters in one statement; one that exists already counts one more attempt."""
    if not added:
        return
    new = insert_into(dead_letters, connection)
    again = {name: new.excluded[name] for name in ("error", "traceback", "headers", "last_at")}
    statement = new.on_conflict_do_update(
        index_elements=["fingerprint"], set_=again | {"attempts": dead_letters.c.attempts + 1}
    )
    await connection.execute(statement, [_values(dead_letter) for dead_letter in added])


def log_dead_letter(dead_letter: DeadLetter) -> None:
    """Log a dead letter as an error: an operator must act."""
    log.error(
        "message dead-lettered",
        service=dead_letter.service,
        reason=dead_letter.reason,
        error=dead_letter.error,
        saga_type=dead_letter.saga_type or _named_type(dead_letter.message),
        saga_id=dead_letter.message.correlation_id,
        step=dead_letter.step,
        event_id=dead_letter.message.message_id,
        **trace_facts(dead_letter.message.headers.get(TRACEPARENT)),
    )


async def choose(
    connection: AsyncConnection, which: Selection, *, after: str = "", most: int, locked: bool
) -> list[DeadLetter]:
    """Return up to `most` of the selected dead letters, oldest first, after the one with the id `after`."""
    query = select(dead_letters).where(which.condition(), dead_letters.c.id > after)
    query = query.order_by(dead_letters.c.id).limit(most)
    rows = await connection.execute(query.with_for_update() if locked else query)
    return [_dead_letter(row) for row in rows]


async def take(connection: AsyncConnection, wanted: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Delete these dead letters, and return those that still existed."""
    ids = [dead_letter.id for dead_letter in wanted]
    rows = await connection.execute(delete(dead_letters).where(dead_letters.c.id.in_(ids)).returning(dead_letters.c.id))
    taken = set(rows.scalars())
    return [dead_letter for dead_letter in wanted if dead_letter.id in taken]


async def prune(
    connection: AsyncConnection, *, before: datetime, most: int, unless: ColumnElement[bool] | None = None
) -> int:
    """Delete up to `most` dead letters of that time or earlier, and return how many."""
    old = select(dead_letters.c.id).where(dead_letters.c.last_at <= before)
    if unless is not None:
        old = old.where(~unless)
    statement = delete(dead_letters).where(dead_letters.c.id.in_(old.order_by(dead_letters.c.last_at).limit(most)))
    return (await connection.execute(statement)).rowcount


def _values(dead_letter: DeadLetter) -> dict[str, Any]:
    message = dead_letter.message
    values = {
        "id": dead_letter.id,
        "service": dead_letter.service,
        "reason": dead_letter.reason,
        "error": dead_letter.error,
        "traceback": dead_letter.traceback,
        "saga_type": dead_letter.saga_type or _named_type(message),
        "saga_id": message.correlation_id,
        "step": dead_letter.step,
        "event_type": message.type,
        "message_id": message.message_id,
        "routing_key": message.routing_key,
        "sent_at": message.timestamp,
        "headers": json.dumps(dict(message.headers), default=str),
        "body": message.body,
        "attempts": dead_letter.attempts,
        "first_at": dead_letter.first_at or dead_letter.at,
        "last_at": dead_letter.at,
        "fingerprint": _fingerprint(dead_letter),
    }
    # PostgreSQL stores no NUL in text; the body is bytes and stays whole.
    return {name: value.replace("\0", "") if isinstance(value, str) else value for name, value in values.items()}


def _named_type(message: WireMessage) -> str | None:
    """Return the saga type in a message's header, which may hold anything if the sender is unknown."""
    name = message.headers.get(SAGA_TYPE)
    return name[:_LONGEST_TYPE] if isinstance(name, str) and name else None


def _fingerprint(dead_letter: DeadLetter) -> str:
    """Return what identifies a dead letter; the body, too, so that a client that reuses its id loses no message."""
    message = dead_letter.message
    facts = [dead_letter.step, dead_letter.reason, message.message_id, message.routing_key, message.correlation_id]
    return hashlib.sha256(json.dumps(facts).encode() + message.body).hexdigest()


def _dead_letter(row: Row[Any]) -> DeadLetter:
    message = WireMessage(
        body=row.body,
        routing_key=row.routing_key,
        message_id=row.message_id,
        correlation_id=row.saga_id,
        type=row.event_type,
        timestamp=row.sent_at,
        headers=headers_or_empty(row.headers),
    )
    return DeadLetter(
        id=row.id,
        service=row.service,
        reason=row.reason,
        error=row.error,
        message=message,
        at=row.last_at,
        saga_type=row.saga_type,
        step=row.step,
        attempts=row.attempts,
        traceback=row.traceback,
        first_at=row.first_at,
    )


def headers_or_empty(text: str) -> dict[str, Any]:
    """Return a dead letter's headers; an empty dict where the text can't be read."""
    try:
        return headers_of(text)
    except ValueError:  # without them a dead letter can still be read, redriven and dropped, and so can its neighbours
        return {}
