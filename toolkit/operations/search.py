"""Searches the sagas of one service, by an id or the latest moved first, page by page.

The work for one page is bounded, however long the log is: when few sagas match, a page may be short, with a cursor to
continue from.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.operations.attention import Attention, are_few, needs, reasons_of, sagas_in_need
from toolkit.persistence.saga_log import is_same_saga, of, saga_log
from toolkit.protocol.keys import SagaKey
from toolkit.protocol.rows import Row, member_or_text

#: The time for one page, in seconds: an operator waits for it, and may request the next.
_PATIENCE = 0.07
#: How many rows of the log one statement reads; the first one reads few, since a match is likely near.
_FIRST_WINDOW, _WINDOW = 2_000, 16_000
#: Where an event may be in the log, in seconds from the creation of its id: emitted within a transaction, consumed a
#: little later, perhaps by another clock, or after an outage.
_AROUND = ((-5, 5), (5, 60), (-120, -5), (60, 900))
#: How far the times of entries may deviate from the order of their rows.
_DISORDER, _LAST_ROWS = timedelta(minutes=5), 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A filter of sagas: all conditions have to hold; without any, all sagas match.

    - `q`: the saga's id, or the id of an event that it consumed or emitted here.
    - `state`, `type`: those of the saga's last entry here; `older_than`: the age of that entry.
    - `step`: the last step that moved here; the end of the saga moves none.
    """

    q: str | None = None
    state: SagaState | None = None
    step: str | None = None
    attention: Attention | None = None
    older_than: timedelta | None = None
    type: str | None = None


def _attention(reasons: Iterable[str]) -> tuple[Attention, ...]:
    return tuple(map(member_or_text(Attention), reasons))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSaga(Row):
    """A saga by its entries in this service; `step` is the one that moved last, at `moved_at`.

    `at` is the time of the last entry, the saga's end included.
    """

    conversions: ClassVar = {"state": member_or_text(SagaState), "attention": _attention}

    saga_id: str
    saga_type: str
    state: SagaState
    step: str
    started_at: datetime
    moved_at: datetime
    at: datetime
    attention: tuple[Attention, ...]


#: Sagas, and the cursor of the next page; None when there is none.
Found = tuple[list[FoundSaga], str | None]


async def search(
    connection: AsyncConnection, which: Search, *, now: datetime, limit: int = 100, cursor: int | None = None
) -> Found:
    """Return matching sagas, the latest moved first.

    `cursor` is the one that the previous page returned. A saga that moves meanwhile moves to the first page.
    """
    before = now - which.older_than if which.older_than else None
    conditions = _conditions(which, before)
    attention = [needs(which.attention)] if which.attention else []
    if which.q is not None:
        rows, row = await _looked_up(connection, which.q, [*conditions, *attention], cursor)
    elif which.attention and await are_few(connection, which.attention):
        rows, row = await _among_few(connection, which.attention, conditions, limit=limit, cursor=cursor)
    else:
        start = await _row_of(connection, before) if before and cursor is None else cursor
        rows, row = await _walk(connection, _last_entries().where(*conditions, *attention), limit=limit, cursor=start)
    reasons = await reasons_of(connection, [(each.saga_type, each.saga_id) for each in rows])
    sagas = [FoundSaga.of({**each._mapping, "attention": why}) for each, why in zip(rows, reasons, strict=True)]
    return sagas, None if row is None else str(row)


def _conditions(which: Search, before: datetime | None) -> list[ColumnElement[bool]]:
    table = saga_log.c
    values = ((table.saga_state, which.state), (_moved("step"), which.step), (table.saga_type, which.type))
    conditions = [column == str(value) for column, value in values if value is not None]
    conditions += [table.at <= before] if before else []
    return conditions


def _last_entries() -> Select[Any]:
    """Return the query of each saga's last entry; the scalar subqueries keep every planner to the index on sagas."""
    later = saga_log.alias()
    last_id = select(func.max(later.c.id)).where(is_same_saga(later)).scalar_subquery()
    return _entries().where(saga_log.c.id == last_id)


def _moved(name: str) -> ColumnElement[Any]:
    """Return a column of the saga's last entry that is not the note of its end."""
    moved = saga_log.alias()
    is_no_end = moved.c.event_type.is_distinct_from(SagaEnded.__name__)
    found = select(moved.c[name]).where(is_same_saga(moved), is_no_end)
    return func.coalesce(found.order_by(moved.c.id.desc()).limit(1).scalar_subquery(), saga_log.c[name])


def _entries() -> Select[Any]:
    first = saga_log.alias()
    started_at = select(first.c.at).where(is_same_saga(first)).order_by(first.c.id).limit(1).scalar_subquery()
    return select(
        saga_log.c.id.label("row_id"),
        saga_log.c.saga_id,
        saga_log.c.saga_type,
        saga_log.c.saga_state.label("state"),
        _moved("step").label("step"),
        started_at.label("started_at"),
        _moved("at").label("moved_at"),
        saga_log.c.at,
    )


async def _walk(
    connection: AsyncConnection, query: Select[Any], *, limit: int, cursor: int | None
) -> tuple[list[Any], int | None]:
    """Read the log backwards from the cursor, until `limit` rows are found, or the time or the log ends."""
    lowest = await connection.scalar(select(func.min(saga_log.c.id)))
    if lowest is None:
        return [], None
    below = await _behind_the_last(connection) if cursor is None else cursor
    until, width, found = time.monotonic() + _PATIENCE, _FIRST_WINDOW, list[Any]()
    while below > lowest and len(found) < limit:
        window = query.where(saga_log.c.id < below, saga_log.c.id >= below - width)
        found += await connection.execute(window.order_by(saga_log.c.id.desc()).limit(limit - len(found)))
        below, width = below - width, min(width * 2, _WINDOW)
        if lowest < below and len(found) < limit and time.monotonic() > until:
            return found, below
    return found, int(found[-1].row_id) if len(found) == limit else None


async def _behind_the_last(connection: AsyncConnection) -> int:
    return int(await connection.scalar(select(func.max(saga_log.c.id))) or 0) + 1


# -- by an event's id ------------------------------------------------------------------------------------------------


async def _looked_up(
    connection: AsyncConnection, q: str, conditions: Sequence[ColumnElement[bool]], cursor: int | None
) -> tuple[list[Any], int | None]:
    """Return the matching sagas of an id, or the cursor from which the search continues.

    An event belongs to one saga; sagas of different types may share an id.
    """
    if "\0" in q:
        return [], None  # no id has a NUL, and PostgreSQL rejects it
    if cursor is None:
        rows = await _last_of(connection, of(q, None), *conditions)
        if rows or (conditions and await _last_of(connection, of(q, None))):
            return rows, None
    saga, row = await _saga_of(connection, q, cursor)
    return (await _last_of(connection, of(saga[1], saga[0]), *conditions) if saga else []), row


async def _last_of(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> list[Any]:
    return list(await connection.execute(_last_entries().where(*conditions).order_by(saga_log.c.id.desc())))


async def _saga_of(connection: AsyncConnection, q: str, cursor: int | None) -> tuple[SagaKey | None, int | None]:
    """Return the saga of an event, or the cursor from which the search continues.

    An event whose id contains its time is near that time, or most likely elsewhere: only later pages search further.
    """
    if cursor is None and (made := _made_at(q)) is not None:
        for since, until in _AROUND:
            found = await _near(connection, q, made + timedelta(seconds=since), made + timedelta(seconds=until))
            if found is not None:
                return found, None
        return None, await _behind_the_last(connection)
    query = select(saga_log.c.saga_type, saga_log.c.saga_id, saga_log.c.id.label("row_id")).where(_is_event(q))
    rows, row = await _walk(connection, query, limit=1, cursor=cursor)
    return ((rows[0].saga_type, rows[0].saga_id), None) if rows else (None, row)


async def _near(connection: AsyncConnection, q: str, since: datetime, until: datetime) -> SagaKey | None:
    query = select(saga_log.c.saga_type, saga_log.c.saga_id)
    query = query.where(saga_log.c.at >= since, saga_log.c.at < until, _is_event(q))
    found = (await connection.execute(query.limit(1))).first()
    return (found.saga_type, found.saga_id) if found else None


def _is_event(q: str) -> ColumnElement[bool]:
    return or_(saga_log.c.event_id == q, saga_log.c.emitted_id == q)


def _made_at(event_id: str) -> datetime | None:
    """Return when an id was created: a UUIDv7 begins with that time, in milliseconds; other ids have none."""
    try:
        found = uuid.UUID(event_id)
        moment = datetime.fromtimestamp((found.int >> 80) / 1000, UTC)
        return moment if found.version == 7 and 1971 <= moment.year <= 9000 else None
    except (ValueError, OverflowError, OSError):
        return None


# -- by the need for attention ---------------------------------------------------------------------------------------


async def _among_few(
    connection: AsyncConnection,
    attention: Attention,
    conditions: Sequence[ColumnElement[bool]],
    *,
    limit: int,
    cursor: int | None,
) -> tuple[list[Any], int | None]:
    # By scalar subqueries: otherwise a planner may read the whole log.
    needy, last = sagas_in_need(attention).distinct().subquery(), saga_log.alias()
    is_its_type = or_(last.c.saga_type == needy.c.saga_type, needy.c.saga_type.is_(None))
    last_ids = select(
        select(func.max(last.c.id)).where(last.c.saga_id == needy.c.saga_id, is_its_type).scalar_subquery()
    )
    query = _entries().where(saga_log.c.id.in_(last_ids.select_from(needy)), *conditions)
    query = query if cursor is None else query.where(saga_log.c.id < cursor)
    found = list(await connection.execute(query.order_by(saga_log.c.id.desc()).limit(limit)))
    return found, int(found[-1].row_id) if len(found) == limit else None


async def _row_of(connection: AsyncConnection, before: datetime) -> int | None:
    """Return the row behind which all entries are younger, by the index on time."""
    near = select(saga_log.c.id).where(saga_log.c.at <= before + _DISORDER).order_by(saga_log.c.at.desc())
    last = await connection.scalar(select(func.max(near.limit(_LAST_ROWS).subquery().c.id)))
    return int(last) + 1 if last else 0
