"""Searching the sagas of one service: by an id, or the latest moved first, page by page.

No page costs more than a little work, however long the log is: where few sagas match, a page may come back short, with
the cursor to go on from.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, exists, func, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.persistence.dead_letters import dead_letters
from toolkit.persistence.overdue_steps import overdue
from toolkit.persistence.saga_log import SagaKey, is_same_saga, of, saga_log

#: Sagas, and from where to go on; None where there are no more.
Found = tuple[list[dict[str, Any]], str | None]

#: For how long one page looks, in seconds: a person waits, and may ask for the next.
_PATIENCE = 0.07
#: How many rows of the log one statement looks at; a match is likely near, so it begins with few.
_FIRST_WINDOW, _WINDOW = 2_000, 16_000
#: Up to so many sagas that want attention are looked up one by one; of more, the log's end holds enough.
_FEW = 500
#: Where an event may stand in the log, as seconds from when its id was made: emitted within a transaction, heard a
#: little later, by another clock perhaps, or after an outage.
_AROUND = ((-5, 5), (5, 60), (-120, -5), (60, 900))
#: How far an entry's time may stand out of the order in which entries were written.
_DISORDER, _LAST_ROWS = timedelta(minutes=5), 100


class Attention(StrEnum):
    """Why a saga may need a person."""

    OVERDUE = "overdue"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which sagas are meant: those for which all of this holds, and all of them where nothing is said.

    - `q`: the saga's id, or the id of an event that it took or emitted here.
    - `state`, `type`: as the saga's last entry here says; `older_than`: nothing was written of it since.
    - `step`: the one that moved last here; that the saga ended moves none.
    """

    q: str | None = None
    state: SagaState | None = None
    step: str | None = None
    attention: Attention | None = None
    older_than: timedelta | None = None
    type: str | None = None


async def search(
    connection: AsyncConnection, which: Search, *, now: datetime, limit: int = 100, cursor: int | None = None
) -> Found:
    """Return the sagas that are meant, the latest moved first: id, type, state, last step, since when, what is wrong.

    `moved_at` is when that step moved, `at` when anything was written last, be it that the saga has ended.

    `cursor` is what the page before returned. A saga that moves while somebody turns pages goes to the first one.
    """
    before = now - which.older_than if which.older_than else None
    conditions = _conditions(which, before)
    needy = [_needs(which.attention)] if which.attention else []
    if which.q is not None:
        rows, row = await _looked_up(connection, which.q, [*conditions, *needy], cursor)
    elif which.attention and await _are_few(connection, which.attention):
        rows, row = await _among_few(connection, which.attention, conditions, limit=limit, cursor=cursor)
    else:
        start = await _row_of(connection, before) if before and cursor is None else cursor
        rows, row = await _walk(connection, _last_entries().where(*conditions, *needy), limit=limit, cursor=start)
    return await _shown(connection, rows), None if row is None else str(row)


def _conditions(which: Search, before: datetime | None) -> list[ColumnElement[bool]]:
    table = saga_log.c
    said = ((table.saga_state, which.state), (_moved("step"), which.step), (table.saga_type, which.type))
    conditions = [column == str(value) for column, value in said if value is not None]
    conditions += [table.at <= before] if before else []
    return conditions


def _last_entries() -> Select[Any]:
    """Return the query of each saga's last entry; the scalar subqueries keep every planner to the index on sagas."""
    later = saga_log.alias()
    last_id = select(func.max(later.c.id)).where(is_same_saga(later)).scalar_subquery()
    return _entries().where(saga_log.c.id == last_id)


def _moved(name: str) -> ColumnElement[Any]:
    """Return what the saga's last entry says that did something, rather than being told that the saga has ended."""
    moved = saga_log.alias()
    did_something = moved.c.event_type.is_distinct_from(SagaEnded.__name__)
    found = select(moved.c[name]).where(is_same_saga(moved), did_something)
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
    """Go back through the log from the cursor, until so many rows are found, or patience or the log ends."""
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
    """Return the sagas that an id belongs to, if they are meant, or from where to go on looking where patience ended.

    An event belongs to one; sagas of different types may have one id.
    """
    if "\0" in q:
        return [], None  # no such id can be; PostgreSQL would stumble over it
    if cursor is None:
        rows = await _last_of(connection, of(q, None), *conditions)
        if rows or (conditions and await _last_of(connection, of(q, None))):
            return rows, None
    saga, row = await _saga_of(connection, q, cursor)
    return (await _last_of(connection, of(saga[1], saga[0]), *conditions) if saga else []), row


async def _last_of(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> list[Any]:
    return list(await connection.execute(_last_entries().where(*conditions).order_by(saga_log.c.id.desc())))


async def _saga_of(connection: AsyncConnection, q: str, cursor: int | None) -> tuple[SagaKey | None, int | None]:
    """Return the saga that an event belongs to, and from where to go on looking where patience ended.

    An event whose id tells its time is near that time, or nearly always not here: only who goes on looks further.
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
    """Return when an id was made: a UUIDv7 begins with that, in milliseconds; no other id tells."""
    try:
        found = uuid.UUID(event_id)
        moment = datetime.fromtimestamp((found.int >> 80) / 1000, UTC)
        return moment if found.version == 7 and 1971 <= moment.year <= 9000 else None
    except (ValueError, OverflowError, OSError):
        return None


# -- by what needs a person ------------------------------------------------------------------------------------------


def _in_need(attention: Attention) -> Select[Any]:
    """Return the query of what needs a person, by saga; a letter that could not be read may tell no type."""
    if attention is Attention.OVERDUE:
        return select(overdue.c.saga_id, overdue.c.saga_type)
    return select(dead_letters.c.saga_id, dead_letters.c.saga_type).where(dead_letters.c.saga_id.is_not(None))


def _needs(attention: Attention) -> ColumnElement[bool]:
    """Return the condition that an entry's saga needs a person."""
    needy = overdue.c if attention is Attention.OVERDUE else dead_letters.c
    is_its_type = or_(needy.saga_type == saga_log.c.saga_type, needy.saga_type.is_(None))
    return exists().where(needy.saga_id == saga_log.c.saga_id, is_its_type)


def _all_in_need(saga_ids: Sequence[str]) -> CompoundSelect[Any]:
    """Return the query of those among these sagas that need a person, each once for each reason."""
    return union_all(
        *(
            query.add_columns(literal(attention.value)).where(query.selected_columns[0].in_(saga_ids)).distinct()
            for attention in Attention
            for query in [_in_need(attention)]
        )
    )


async def _are_few(connection: AsyncConnection, attention: Attention) -> bool:
    most = _in_need(attention).limit(_FEW + 1).subquery()
    return int(await connection.scalar(select(func.count()).select_from(most)) or 0) <= _FEW


async def _among_few(
    connection: AsyncConnection,
    attention: Attention,
    conditions: Sequence[ColumnElement[bool]],
    *,
    limit: int,
    cursor: int | None,
) -> tuple[list[Any], int | None]:
    # By scalar subqueries: no planner gets the idea to read the whole log instead.
    needy, last = _in_need(attention).distinct().subquery(), saga_log.alias()
    is_its_type = or_(last.c.saga_type == needy.c.saga_type, needy.c.saga_type.is_(None))
    last_ids = select(
        select(func.max(last.c.id)).where(last.c.saga_id == needy.c.saga_id, is_its_type).scalar_subquery()
    )
    query = _entries().where(saga_log.c.id.in_(last_ids.select_from(needy)), *conditions)
    query = query if cursor is None else query.where(saga_log.c.id < cursor)
    found = list(await connection.execute(query.order_by(saga_log.c.id.desc()).limit(limit)))
    return found, int(found[-1].row_id) if len(found) == limit else None


async def _shown(connection: AsyncConnection, rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the rows as readers see them, with what is wrong with each saga."""
    sagas = [{name: value for name, value in row._mapping.items() if name != "row_id"} for row in rows]
    saga_ids = [saga["saga_id"] for saga in sagas]
    wrong = list(await connection.execute(_all_in_need(saga_ids))) if sagas else []
    return [saga | {"attention": _wrong_with(saga, wrong)} for saga in sagas]


def _wrong_with(saga: Mapping[str, Any], wrong: Iterable[Any]) -> list[str]:
    found = [
        attention
        for saga_id, saga_type, attention in wrong
        if saga_id == saga["saga_id"] and saga_type in (saga["saga_type"], None)
    ]
    return list(dict.fromkeys(found))


async def _row_of(connection: AsyncConnection, before: datetime) -> int | None:
    """Return the row behind which nothing is as old as that, by the index on time."""
    near = select(saga_log.c.id).where(saga_log.c.at <= before + _DISORDER).order_by(saga_log.c.at.desc())
    last = await connection.scalar(select(func.max(near.limit(_LAST_ROWS).subquery().c.id)))
    return int(last) + 1 if last else 0
