"""Overdue steps: what was done here, in sagas that should have ended long ago and have not.

Found by a window over the saga log that moves on with time, so that the search costs the same however long the log
is. A row goes when its step moves or its saga ends; what stands here is what needs a person, or a little push.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.persistence.database import UtcDateTime, insert_into, metadata
from toolkit.persistence.saga_log import SagaKey, StreamKey, is_contradiction, is_same_saga, is_same_step, saga_log
from toolkit.persistence.unreadable_rows import REST, readable
from toolkit.protocol.fence import Note, StepState

overdue = Table(
    "overdue",
    metadata,
    Column("saga_type", String, primary_key=True),
    Column("saga_id", String, primary_key=True),
    Column("step", String, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("saga_state", String, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("next_at", UtcDateTime, nullable=False, index=True),
    Column("nudges", Integer, nullable=False),
    Column("aborted", Integer, nullable=False),
    Index("overdue_by_saga", "saga_id"),
)

#: How far the search has come; one row. Whoever moves it has found what lies between.
watched = Table(
    "watched", metadata, Column("id", Integer, primary_key=True), Column("until", UtcDateTime, nullable=False)
)

#: How many steps one sweep pushes at most; the rest are due at the next.
_AT_ONCE = 500

_BEGINNING = datetime(1970, 1, 2, tzinfo=UTC)
#: An entry's time is taken before its commit, and by its replica's clock: the window looks back this far again.
_OVERLAP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverdueStep:
    """A step that waits for its saga's end; `nudges` counts how often its event was sent again."""

    saga_id: str
    step: str
    saga_type: str
    position: int
    state: StepState
    saga_state: SagaState
    since: datetime
    nudges: int
    aborted: bool

    @property
    def saga(self) -> SagaKey:
        """Whose step it is."""
        return self.saga_type, self.saga_id

    @property
    def key(self) -> StreamKey:
        """Which step of which saga it is."""
        return self.saga_type, self.saga_id, self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """A step that does not stand as its saga's end has it: no rule mends that, so it needs a person."""

    saga_id: str
    saga_type: str
    step: str
    error: str


@dataclass(frozen=True, slots=True)
class Found:
    """What one search has found.

    - `steps`: those whose sagas should have ended.
    - `ends`: sagas whose end this service knows, and has not received: its own step has ended them.
    - `contradictions`: steps that do not stand as their sagas' ends have it.
    """

    steps: list[OverdueStep]
    ends: list[SagaEnded]
    contradictions: list[Contradiction]


async def find(connection: AsyncConnection, *, before: datetime, now: datetime) -> Found:
    """Note the steps that moved last before that moment, and whose sagas have not ended since; and find what is odd."""
    since = await _advance(connection, before)
    if since is None:
        return Found([], [], [])
    window = {"since": since - _OVERLAP, "before": before}
    steps = await _find_steps(connection, window, now)
    ended = (await connection.execute(_UNCLOSED, window)).all()
    odd = await connection.execute(_CONTRADICTED, window | {"since": since})
    return Found(steps, _ends(ended), [Contradiction(**row._mapping) for row in odd])


async def _find_steps(connection: AsyncConnection, window: dict[str, datetime], now: datetime) -> list[OverdueStep]:
    rows = (await connection.execute(_UNFINISHED, window)).all()
    found, _ = readable("saga_log", rows, _found)
    if found:
        await forget(connection, found)
        await connection.execute(insert(overdue), [_values(each, now) for each in found])
    return found


def _ends(rows: Sequence[Row[Any]]) -> list[SagaEnded]:
    """Return the messages that these ends would have come by; unchecked, since no row may stop the others."""
    by_type: dict[str, dict[str, list[str]]] = {}
    for saga_type, saga_id, state in map(tuple, rows):
        by_type.setdefault(saga_type, {}).setdefault(state, []).append(saga_id)
    return [
        SagaEnded.model_construct(
            saga_type=saga_type,
            completed=tuple(outcomes.get(SagaState.COMPLETED, ())),
            failed=tuple(outcomes.get(SagaState.FAILED, ())),
        )
        for saga_type, outcomes in by_type.items()
    ]


async def claim(connection: AsyncConnection, *, now: datetime, until: datetime) -> list[OverdueStep]:
    """Take the steps whose next push is due, so that no other replica pushes them before `until`."""
    key = (overdue.c.saga_type, overdue.c.saga_id, overdue.c.step)
    due = select(*key).where(overdue.c.next_at <= now).limit(_AT_ONCE)
    taken = update(overdue).where(tuple_(*key).in_(due.with_for_update(skip_locked=True)))
    rows = await connection.execute(taken.values(next_at=until, nudges=overdue.c.nudges + 1).returning(*overdue.c))
    steps, broken = readable("overdue", rows, _step)
    for row in broken:
        await connection.execute(update(overdue).where(_is_one).values(next_at=now + REST), _key(row))
    return steps


async def postpone(connection: AsyncConnection, steps: Sequence[OverdueStep], until: Sequence[datetime]) -> None:
    """Have the next push of each of these steps come due at its moment."""
    if steps:
        statement = update(overdue).where(_is_one).values(next_at=bindparam("until", type_=UtcDateTime()))
        moments = zip(steps, until, strict=True)
        await connection.execute(statement, [_key(step) | {"until": moment} for step, moment in moments])


async def mark_aborted(connection: AsyncConnection, steps: Sequence[OverdueStep]) -> None:
    """Remember that an abort was sent for these steps' sagas."""
    if steps:
        statement = update(overdue).where(_is_one).values(aborted=1)
        await connection.execute(statement, [_key(step) for step in steps])


async def forget(connection: AsyncConnection, steps: Sequence[OverdueStep]) -> None:
    """Delete steps that moved, or whose sagas ended."""
    if steps:
        await connection.execute(delete(overdue).where(_is_one), [_key(step) for step in steps])


async def forget_sagas(connection: AsyncConnection, sagas: Sequence[SagaKey]) -> None:
    """Delete the steps of these sagas."""
    if sagas:
        of_saga = and_(overdue.c.saga_type == bindparam("of_type"), overdue.c.saga_id == bindparam("of_saga"))
        known = [{"of_type": saga_type, "of_saga": saga_id} for saga_type, saga_id in sagas]
        await connection.execute(delete(overdue).where(of_saga), known)


async def count(connection: AsyncConnection) -> int:
    """Return how many steps are overdue."""
    return int(await connection.scalar(select(func.count()).select_from(overdue)) or 0)


async def sagas_by_state(connection: AsyncConnection) -> list[tuple[str, SagaState, int]]:
    """Return how many sagas have an overdue step here, by their type and state."""
    query = select(overdue.c.saga_type, overdue.c.saga_state, func.count(overdue.c.saga_id.distinct()))
    rows = await connection.execute(query.group_by(overdue.c.saga_type, overdue.c.saga_state))
    known = set(SagaState)  # another word is that of a row that the watch sets aside
    return [(saga_type, SagaState(state), sagas) for saga_type, state, sagas in rows if state in known]


async def listed(connection: AsyncConnection, *, saga_id: str | None = None, limit: int = 1000) -> list[OverdueStep]:
    """Return overdue steps, the longest waiting first; with an id, those of all sagas that have it."""
    query = select(overdue) if saga_id is None else select(overdue).where(overdue.c.saga_id == saga_id)
    rows = await connection.execute(query.order_by(overdue.c.since).limit(limit))
    return readable("overdue", rows, _step)[0]


async def _advance(connection: AsyncConnection, until: datetime) -> datetime | None:
    """Move the window's end on, and return where it stood; None where another replica was faster or nothing is new."""
    stood: datetime | None = await connection.scalar(select(watched.c.until))
    if stood is None:
        first = insert_into(watched, connection).values(id=1, until=until).on_conflict_do_nothing()
        return _BEGINNING if (await connection.execute(first)).rowcount else None
    moved = await connection.execute(
        update(watched).where(watched.c.until == stood, watched.c.until < until).values(until=until)
    )
    return stood if moved.rowcount else None


def _in_window() -> tuple[ColumnElement[bool], ...]:
    return (
        saga_log.c.at > bindparam("since", type_=UtcDateTime()),
        saga_log.c.at <= bindparam("before", type_=UtcDateTime()),
    )


def _has_moved() -> ColumnElement[bool]:
    later = saga_log.alias()
    return exists().where(is_same_step(later), later.c.position > saga_log.c.position)


def _unfinished() -> Select[Any]:
    """Return the steps that moved last after `since`, up to `before`, and whose sagas have not ended; built once."""
    other = saga_log.alias()
    is_known = exists().where(is_same_step(overdue), overdue.c.position == saga_log.c.position)
    has_ended = exists().where(
        is_same_saga(other),
        or_(
            other.c.saga_state.in_([SagaState.COMPLETED.value, SagaState.FAILED.value]),
            and_(other.c.to_state == Note.ENDED.value, other.c.position.is_(None)),
        ),
    )
    shown = ("saga_id", "step", "saga_type", "position", "to_state", "saga_state", "at")
    return select(*(saga_log.c[name] for name in shown)).where(
        *_in_window(),
        saga_log.c.position.is_not(None),
        saga_log.c.to_state != StepState.CONFIRMED.value,
        ~_has_moved(),
        ~has_ended,
        ~is_known,
    )


def _unclosed() -> Select[Any]:
    """Return the sagas, and their ends, of steps that are still completed where the end is known; built once."""
    noted, other = saga_log.alias(), saga_log.alias()
    is_noted = exists().where(is_same_step(noted), noted.c.to_state == Note.ENDED.value)
    ended = [SagaState.COMPLETED.value, SagaState.FAILED.value]
    of_saga = is_same_saga(other), other.c.saga_state.in_(ended)
    end = select(other.c.saga_state).where(*of_saga).order_by(other.c.id).limit(1).scalar_subquery()
    is_standing = (
        saga_log.c.position.is_not(None),
        saga_log.c.to_state == StepState.COMPLETED.value,
        ~_has_moved(),
        ~is_noted,
        exists().where(*of_saga),
    )
    return select(saga_log.c.saga_type, saga_log.c.saga_id, end).where(*_in_window(), *is_standing).distinct()


def _contradicted() -> Select[Any]:
    """Return the steps that contradict how their sagas ended; built once."""
    shown = ("saga_id", "saga_type", "step", "error")
    return select(*(saga_log.c[name] for name in shown)).where(*_in_window(), is_contradiction)


_UNFINISHED, _UNCLOSED, _CONTRADICTED = _unfinished(), _unclosed(), _contradicted()
_is_one = and_(
    overdue.c.saga_type == bindparam("of_type"),
    overdue.c.saga_id == bindparam("of_saga"),
    overdue.c.step == bindparam("of_step"),
)


def _key(step: OverdueStep | Row[Any]) -> dict[str, str]:
    return {"of_type": step.saga_type, "of_saga": step.saga_id, "of_step": step.step}


def _values(step: OverdueStep, next_at: datetime) -> dict[str, Any]:
    return {
        "saga_id": step.saga_id,
        "step": step.step,
        "saga_type": step.saga_type,
        "position": step.position,
        "state": step.state,
        "saga_state": step.saga_state,
        "since": step.since,
        "next_at": next_at,
        "nudges": 0,
        "aborted": 0,
    }


def _found(row: Row[Any]) -> OverdueStep:
    """Return the step that an entry of the log tells of."""
    return OverdueStep(
        saga_id=row.saga_id,
        step=row.step,
        saga_type=row.saga_type,
        position=row.position,
        state=StepState(row.to_state),
        saga_state=SagaState(row.saga_state),
        since=row.at,
        nudges=0,
        aborted=False,
    )


def _step(row: Row[Any]) -> OverdueStep:
    return OverdueStep(
        saga_id=row.saga_id,
        step=row.step,
        saga_type=row.saga_type,
        position=row.position,
        state=StepState(row.state),
        saga_state=SagaState(row.saga_state),
        since=row.since,
        nudges=row.nudges,
        aborted=bool(row.aborted),
    )
