"""The saga log, append-only: every move of every step of every saga in this service. It is the fence.

The entries of one step of one saga form a small stream; the unique key on the position in it decides every race.
Notes (a retry, an ignored late event, …) have no position, and there may be any number of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    FromClause,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    insert,
    text,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaState
from toolkit.errors import PositionTakenError
from toolkit.persistence.schema import Key, UtcDateTime, metadata

#: The id comes first: the key is the index that finds a saga's entries, too, even by the id alone.
_FENCE = UniqueConstraint("saga_id", "saga_type", "step", "position", name="saga_log_fence")
#: The part of SQLite's error text that names the fence: no other key has this column.
_FENCED_COLUMN = "saga_log.position"

#: The condition that an entry notes a contradiction; as text, since no planner proves it from a parameter.
_CONTRADICTS = text("to_state = 'ended' AND error IS NOT NULL")
#: The condition that a join waits, likewise.
_GATHERING = text("to_state = 'gathering'")
is_contradiction = text("saga_log.to_state = 'ended' AND saga_log.error IS NOT NULL")

saga_log = Table(
    "saga_log",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("service", String, nullable=False),
    Column("saga_id", Key, nullable=False),
    Column("saga_type", Key, nullable=False),
    Column("step", Key, nullable=False),
    Column("position", Integer),
    Column("from_state", String),
    Column("to_state", String, nullable=False),
    Column("saga_state", String, nullable=False),
    Column("event_id", String),
    Column("event_type", String),
    # Only joins keep the events that they take.
    Column("event_version", Integer),
    Column("event_body", Text),
    Column("event_by", String),
    Column("emitted_id", String),
    Column("emitted_type", String),
    Column("emitted_version", Integer),
    Column("emitted_body", Text),
    Column("attempt", Integer, nullable=False),
    Column("error", Text),
    Column("deadline", UtcDateTime),
    Column("traceparent", String),
    Column("started_at", UtcDateTime),
    Column("at", UtcDateTime, nullable=False),
    _FENCE,
    Index("saga_log_by_time", "at"),
    Index("saga_log_contradictions", "saga_id", sqlite_where=_CONTRADICTS, postgresql_where=_CONTRADICTS),
    Index("saga_log_gathering", "id", sqlite_where=_GATHERING, postgresql_where=_GATHERING),
)


@dataclass(slots=True, kw_only=True)  # not frozen, as little as messages are: it costs three times as much
class Entry:
    """One row of the log; without a `position` it is a note."""

    service: str
    saga_id: str
    saga_type: str
    step: str
    position: int | None
    from_state: str | None
    to_state: str
    saga_state: SagaState
    event_id: str | None
    event_type: str | None
    at: datetime
    emitted_id: str | None = None
    emitted_type: str | None = None
    emitted_version: int | None = None
    emitted_body: str | None = None
    attempt: int = 1
    error: str | None = None
    deadline: datetime | None = None
    traceparent: str | None = None
    started_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class ArrivalEntry(Entry):
    """An entry of a join that keeps the event that arrived.

    The columns are written only with such entries, so that a service without joins writes no more than it reads.
    `event_by`: who gave an answer, the operator or the login that the broker verified; None for any other event.
    """

    event_version: int | None = None
    event_body: str | None = None
    event_by: str | None = None


#: An entry's columns, in their order in `Entry`; asdict() would copy each value deeply.
ENTRY_FIELDS = tuple(each.name for each in fields(Entry))
#: Likewise, where some of the entries keep the events that arrived.
ARRIVAL_FIELDS = tuple(each.name for each in fields(ArrivalEntry))
values_of = attrgetter(*ENTRY_FIELDS)
_all_values_of = attrgetter(*ARRIVAL_FIELDS)
_APPEND = insert(saga_log)


def all_values_of(entry: Entry) -> tuple[Any, ...]:
    """Return an entry's values by `ARRIVAL_FIELDS`."""
    return _all_values_of(entry) if isinstance(entry, ArrivalEntry) else (*values_of(entry), None, None, None)


def of(saga_id: str, saga_type: str | None) -> ColumnElement[bool]:
    """Return the condition that an entry is of this saga; without a type, of any saga with this id."""
    of_id = saga_log.c.saga_id == saga_id
    return of_id if saga_type is None else and_(of_id, saga_log.c.saga_type == saga_type)


def is_same_saga(other: FromClause) -> ColumnElement[bool]:
    """Return the condition that a row of another table, or of an alias of the log, is of the entry's saga."""
    return and_(other.c.saga_id == saga_log.c.saga_id, other.c.saga_type == saga_log.c.saga_type)


def is_same_step(other: FromClause) -> ColumnElement[bool]:
    """Return the condition that such a row is of the entry's saga and step."""
    return and_(is_same_saga(other), other.c.step == saga_log.c.step)


async def append(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    """Append entries in one statement.

    Raises:
        PositionTakenError: another replica took one of the positions first; nothing was appended.
    """
    if entries:
        rows = [dict(zip(ARRIVAL_FIELDS, all_values_of(entry), strict=True)) for entry in entries]
        with recognizing_taken_positions(len(entries)):
            await connection.execute(_APPEND, rows)


@contextmanager
def recognizing_taken_positions(count: int) -> Iterator[None]:
    """Recognize the violation of the fence by a statement that appends so many entries.

    Raises:
        PositionTakenError: another replica took one of the positions first.
    """
    try:
        yield
    except IntegrityError as error:
        if not _is_fence(error):
            raise
        raise PositionTakenError(f"one of {count} positions in the saga log is taken") from error


def _is_fence(error: IntegrityError) -> bool:
    """Whether the fence's key was violated: PostgreSQL's error names the constraint, SQLite's the columns."""
    violated = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
    return violated == _FENCE.name if violated else _FENCED_COLUMN in str(error.orig)
