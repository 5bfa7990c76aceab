"""The saga log: what each step of each saga did in this service, append-only, and the fence.

The entries of one step of one saga are a tiny stream; the unique key on the position in it decides every race.
Notes (a retry, an ignored late event …) have no position, and there may be any number of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    FromClause,
    Index,
    Insert,
    Integer,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    null,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.encoding import Original
from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.errors import PositionTakenError
from toolkit.persistence.database import UtcDateTime, metadata
from toolkit.persistence.id_lists import OneOf
from toolkit.persistence.unreadable_rows import set_aside
from toolkit.protocol.fence import Note, StepState

#: One saga: its type and its id. Two sagas of different types may have the same id, in one service, too.
SagaKey = tuple[str, str]
#: One step of one saga: the saga's type and id, and the step's name.
StreamKey = tuple[str, str, str]

_FENCE = UniqueConstraint("saga_type", "saga_id", "step", "position", name="saga_log_fence")
#: The fence in SQLite's words.
_FENCE_COLUMNS = "saga_log.saga_type, saga_log.saga_id, saga_log.step, saga_log.position"

#: An entry that says how a step contradicts its saga's end; as text, since a planner proves no parameter.
_CONTRADICTS = text("to_state = 'ended' AND error IS NOT NULL")
is_contradiction = text("saga_log.to_state = 'ended' AND saga_log.error IS NOT NULL")

saga_log = Table(
    "saga_log",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("service", String, nullable=False),
    Column("saga_id", String, nullable=False),
    Column("saga_type", String, nullable=False),
    Column("step", String, nullable=False),
    Column("position", Integer),
    Column("from_state", String),
    Column("to_state", String, nullable=False),
    Column("saga_state", String, nullable=False),
    Column("event_id", String),
    Column("event_type", String),
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
    Index("saga_log_by_saga", "saga_id", "id"),
    Index("saga_log_by_time", "at"),
    Index("saga_log_contradictions", "saga_id", sqlite_where=_CONTRADICTS, postgresql_where=_CONTRADICTS),
)

#: What a reader sees of an entry, in this order.
SHOWN = (
    "service", "saga_id", "saga_type", "step", "position", "from_state", "to_state", "saga_state", "event_id",
    "event_type", "emitted_id", "emitted_type", "attempt", "error", "at",
)  # fmt: skip
#: What an entry of one saga's whole story has beside that; a body is people's data, to be masked before it is shown.
STORED = (*SHOWN, "emitted_body", "traceparent", "deadline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row; `position` None makes it a note."""

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


_FIELDS = tuple(each.name for each in fields(Entry))  # asdict() would copy each value deeply


@dataclass(slots=True)
class Stream:
    """The entries of one step of one saga, summed up.

    - `retries`: how many attempts failed since the last position, or the last redrive; the log counts them, no
      message does.
    - `error`: what the last positioned entry says of its reason.
    - `event_ids`: the events that were taken or noted as too late, to tell a copy from a new one.
    - `original`: the event that the step emitted, for its compensation.
    - `end`: how the saga ended, where the stream knows; `has_ended_it` where the step itself did.
    """

    state: StepState | None = None
    position: int = 0
    saga_state: SagaState | None = None
    retries: int = 0
    error: str | None = None
    event_ids: set[str] = field(default_factory=set)
    original: Original | None = None
    end: SagaState | None = None
    has_ended_it: bool = False

    @property
    def completed_body(self) -> str | None:
        """The body of the event that the step emitted."""
        return self.original.body if self.original else None

    def advance(self, entry: Any) -> None:
        """Move on to an `Entry` that was appended, or to a row of them that was read."""
        self.saga_state = SagaState(entry.saga_state)
        if self.saga_state.is_ended:
            self.end = self.end or self.saga_state
        if entry.position is None:
            self._note(entry)
            return
        self.state, self.position = StepState(entry.to_state), entry.position
        self.retries, self.error = 0, entry.error
        if entry.event_id:
            self.event_ids.add(entry.event_id)
        if self.state is StepState.COMPLETED:
            self.has_ended_it = self.saga_state.is_ended
        if self.state is StepState.COMPLETED and entry.emitted_body is not None:
            self.original = Original(entry.emitted_body, entry.emitted_type, entry.emitted_version)

    def _note(self, entry: Any) -> None:
        self.retries = 0 if entry.to_state == Note.REDRIVEN else self.retries + (entry.to_state == Note.RETRYING)
        if entry.to_state == Note.IGNORED and entry.event_id:
            self.event_ids.add(entry.event_id)


# By the id alone, which the index finds; the other types' few entries are parted from them here.
_STREAMS = (
    select(
        saga_log.c.saga_type,
        saga_log.c.saga_id,
        saga_log.c.step,
        saga_log.c.position,
        saga_log.c.to_state,
        saga_log.c.saga_state,
        saga_log.c.event_id,
        saga_log.c.emitted_type,
        saga_log.c.emitted_version,
        saga_log.c.emitted_body,
        saga_log.c.error,
    )
    .where(OneOf(saga_log.c.saga_id, "saga_ids"))
    .order_by(saga_log.c.id)
)
_APPEND = insert(saga_log)


#: What a step may not be left as in a saga that ended well; one that is under way says so once it is over.
_CONTRADICT_SUCCESS = (StepState.FAILED, StepState.FENCED, StepState.COMPENSATED)
_ENDED_WELL = " in a saga that ended completed"
_STILL_COMPLETED = "still completed in a saga that ended failed"


def contradiction(state: str, end: SagaState) -> str | None:
    """Return how a step contradicts its saga's end, if it does; the notes of `close_sagas` say the same."""
    if end is SagaState.COMPLETED:
        return f"{state}{_ENDED_WELL}" if state in _CONTRADICT_SUCCESS else None
    return _STILL_COMPLETED if state == StepState.COMPLETED else None


def is_same_saga(other: FromClause) -> ColumnElement[bool]:
    """Return the condition that a row of another table, or of the log once more, is of the entry's saga."""
    return and_(other.c.saga_id == saga_log.c.saga_id, other.c.saga_type == saga_log.c.saga_type)


def is_same_step(other: FromClause) -> ColumnElement[bool]:
    """Return the condition that such a row is of the entry's saga and step."""
    return and_(is_same_saga(other), other.c.step == saga_log.c.step)


def _insert_behind_the_last(columns: dict[str, Any], *conditions: ColumnElement[bool]) -> Insert:
    """Return the insert of one entry behind the last positioned one of each step of these sagas, where all this holds.

    The sagas are `saga_ids` of the type `saga_type`. It takes `event_id` and `now`, too; the columns that are not given
    are those of the entry before.
    """
    later = saga_log.alias()
    is_last = ~select(later.c.id).where(is_same_step(later), later.c.position > saga_log.c.position).exists()
    of_sagas = OneOf(saga_log.c.saga_id, "saga_ids") & (saga_log.c.saga_type == bindparam("of_type", type_=String))
    values = {name: saga_log.c[name] for name in ("service", "saga_id", "saga_type", "step")} | {
        "event_id": bindparam("event_id", type_=String),
        "event_type": literal(SagaEnded.__name__),
        "attempt": literal(1),
        "at": bindparam("now", type_=UtcDateTime()),
        **columns,
    }
    behind = select(*values.values()).where(of_sagas, saga_log.c.position.is_not(None), is_last, *conditions)
    return insert(saga_log).from_select(list(values), behind)


def _is_noted() -> ColumnElement[bool]:
    """Whether the end was noted behind the step; a scalar, so that no planner hashes the whole log for it."""
    noted = saga_log.alias()
    own = select(noted.c.id).where(is_same_step(noted), noted.c.to_state == Note.ENDED)
    return own.limit(1).scalar_subquery().is_not(None)


def _confirm() -> Insert:
    """Confirm what is completed; what stands otherwise in a saga that ended well is noted once, as a contradiction."""
    state = saga_log.c.to_state
    is_completed = state == StepState.COMPLETED
    columns = {
        "position": case((is_completed, saga_log.c.position + 1), else_=null()),
        "from_state": state,
        "to_state": case((is_completed, literal(StepState.CONFIRMED.value)), else_=literal(Note.ENDED.value)),
        "saga_state": literal(SagaState.COMPLETED.value),
        "error": case((state.in_(_CONTRADICT_SUCCESS), state + literal(_ENDED_WELL)), else_=null()),
    }
    return _insert_behind_the_last(columns, is_completed | ((state != StepState.CONFIRMED) & ~_is_noted()))


def _note_failed() -> Insert:
    """Note the end once per step; a step that still stands completed, and did not end the saga itself, is wrong."""
    ended_here = saga_log.c.saga_state.in_([SagaState.COMPLETED.value, SagaState.FAILED.value])
    left_standing = (saga_log.c.to_state == StepState.COMPLETED) & ~ended_here
    columns = {
        "position": null(),
        "from_state": saga_log.c.to_state,
        "to_state": literal(Note.ENDED.value),
        "saga_state": literal(SagaState.FAILED.value),
        "error": case((left_standing, literal(_STILL_COMPLETED)), else_=null()),
    }
    return _insert_behind_the_last(columns, ~_is_noted())


_CONFIRM, _NOTE_FAILED = _confirm(), _note_failed()


async def read_streams(connection: AsyncConnection, saga_ids: Iterable[str]) -> dict[StreamKey, Stream]:
    """Read all streams of the sagas with these ids, of whatever type, in one statement."""
    streams: dict[StreamKey, Stream] = {}
    if not (wanted := sorted(set(saga_ids))):  # the news that sagas have ended is of none by itself
        return streams
    for row in await connection.execute(_STREAMS, {"saga_ids": wanted}):
        streams.setdefault((row.saga_type, row.saga_id, row.step), Stream()).advance(row)
    return streams


async def readable_streams(
    connection: AsyncConnection, saga_ids: Iterable[str]
) -> tuple[dict[StreamKey, Stream], set[SagaKey]]:
    """Read all streams of the sagas with these ids, but for those that can't be read, which are returned beside."""
    streams: dict[StreamKey, Stream] = {}
    broken: set[SagaKey] = set()
    for row in await connection.execute(_STREAMS, {"saga_ids": sorted(set(saga_ids))}):
        saga = row.saga_type, row.saga_id
        try:
            streams.setdefault((*saga, row.step), Stream()).advance(row)
        except ValueError as error:
            if saga not in broken:
                set_aside("saga_log", error, saga_type=row.saga_type, saga_id=row.saga_id)
            broken.add(saga)
    return {key: stream for key, stream in streams.items() if key[:2] not in broken}, broken


async def append(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    """Append entries in one statement.

    Raises:
        PositionTakenError: somebody else took one of the positions first; nothing was appended.
    """
    if not entries:
        return
    try:
        await connection.execute(_APPEND, [{name: getattr(entry, name) for name in _FIELDS} for entry in entries])
    except IntegrityError as error:
        if not _is_fence(error):
            raise
        raise PositionTakenError(f"one of {len(entries)} positions in the saga log is taken") from error


def _is_fence(error: IntegrityError) -> bool:
    """Whether it was the fence's key: PostgreSQL tells the constraint's name, SQLite its columns."""
    violated = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
    return violated == _FENCE.name if violated else _FENCE_COLUMNS in str(error.orig)


async def close_sagas(connection: AsyncConnection, event_id: str, ended: SagaEnded, *, now: datetime) -> None:
    """Write that these sagas of one type have ended: `confirmed` behind what is completed if well, else a note."""
    known = {"of_type": ended.saga_type, "event_id": event_id, "now": now}
    for statement, saga_ids in ((_CONFIRM, ended.completed), (_NOTE_FAILED, ended.failed)):
        if saga_ids:
            await connection.execute(statement, known | {"saga_ids": saga_ids})


def of(saga_id: str, saga_type: str | None) -> ColumnElement[bool]:
    """Return the condition that an entry is of this saga; without a type, of any saga with this id."""
    of_id = saga_log.c.saga_id == saga_id
    return of_id if saga_type is None else and_(of_id, saga_log.c.saga_type == saga_type)


async def entries(
    connection: AsyncConnection, *, saga_id: str | None = None, saga_type: str | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """Return entries as readers see them, the oldest first; with a limit, the newest so many."""
    query = select(saga_log.c.id, *(saga_log.c[name] for name in SHOWN)).order_by(saga_log.c.id.desc())
    if saga_id is not None:
        query = query.where(of(saga_id, saga_type))
    if limit is not None:
        query = query.limit(limit)
    rows = (await connection.execute(query)).all()
    return [_shown(row) for row in reversed(rows)]


async def timeline(connection: AsyncConnection, saga_id: str, saga_type: str | None = None) -> list[dict[str, Any]]:
    """Return all that is known of each entry of one saga, the oldest first; what was emitted is not masked yet.

    Without a type, of all sagas with this id.
    """
    query = select(*(saga_log.c[name] for name in STORED)).where(of(saga_id, saga_type))
    return [dict(row._mapping) for row in await connection.execute(query.order_by(saga_log.c.id))]


async def page(connection: AsyncConnection, *, after: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
    """Return the next so many entries behind that row, and behind which row to go on; None where that was the last."""
    query = select(saga_log.c.id, *(saga_log.c[name] for name in SHOWN)).where(saga_log.c.id > after)
    rows = (await connection.execute(query.order_by(saga_log.c.id).limit(limit))).all()
    return [_shown(row) for row in rows], rows[-1].id if len(rows) == limit else None


async def since(
    connection: AsyncConnection,
    *,
    after: int | None,
    limit: int,
    saga_id: str | None = None,
    saga_type: str | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Return the next so many entries behind that row, or the newest ones, the oldest first; and the row of the last.

    With a saga's id, and its type, its entries alone. Where there is none, that is the row they were to stand behind.
    """
    query = select(saga_log.c.id, *(saga_log.c[name] for name in SHOWN)).limit(limit)
    query = query if saga_id is None else query.where(of(saga_id, saga_type))
    if after is None:
        rows = list(reversed((await connection.execute(query.order_by(saga_log.c.id.desc()))).all()))
    else:
        rows = list((await connection.execute(query.where(saga_log.c.id > after).order_by(saga_log.c.id))).all())
    return [_shown(row) for row in rows], rows[-1].id if rows else after or 0


async def sagas(
    connection: AsyncConnection, *, state: SagaState | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """Return what this service knows of each saga, the latest moved first: id, type, state, last step, since when."""
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
    return [dict(row._mapping) for row in await connection.execute(query)]


def _shown(row: Row[Any]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in SHOWN}
