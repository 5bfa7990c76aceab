"""The search for overdue steps and contradictions: a window over the saga log that advances with time.

The search costs the same however long the log is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    exists,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.persistence import saga_waits
from toolkit.persistence.contradictions import COLUMNS, Contradiction
from toolkit.persistence.overdue_steps import forget, overdue
from toolkit.persistence.saga_log import is_contradiction, is_same_saga, is_same_step, saga_log
from toolkit.persistence.saga_waits import waits
from toolkit.persistence.schema import UtcDateTime, insert_into, metadata
from toolkit.persistence.unreadable_rows import readable
from toolkit.protocol.fence import Note, StepState
from toolkit.protocol.pending_rows import OverdueStep

#: How far the search has come; one row. The replica that advances it owns what the window holds.
watched = Table(
    "saga_watched", metadata, Column("id", Integer, primary_key=True), Column("until", UtcDateTime, nullable=False)
)

_BEGINNING = datetime(1970, 1, 2, tzinfo=UTC)

#: An entry's time is taken before its commit, by its replica's clock: so consecutive windows overlap.
_OVERLAP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Found:
    """The result of one search.

    - `steps`: steps whose sagas should have ended.
    - `ends`: sagas that this service's own step ended, and whose `SagaEnded` it has not received.
    - `contradictions`: steps whose state contradicts their sagas' ends.
    """

    steps: list[OverdueStep]
    ends: list[SagaEnded]
    contradictions: list[Contradiction]


async def find(connection: AsyncConnection, *, before: datetime, now: datetime) -> Found:
    """Record steps that last moved before `before` and whose sagas have not ended; find ends and contradictions."""
    since = await _advance(connection, before)
    if since is None:
        return Found([], [], [])
    window = {"since": since - _OVERLAP, "before": before}
    steps = await _find_steps(connection, window, now)
    ended = (await connection.execute(_UNCLOSED, window)).all()
    contradictions = await connection.execute(_CONTRADICTED, window | {"since": since})
    return Found(steps, _ends(ended), [Contradiction.of(row._mapping) for row in contradictions])


async def _find_steps(connection: AsyncConnection, window: dict[str, datetime], now: datetime) -> list[OverdueStep]:
    rows = (await connection.execute(_UNFINISHED, window)).all()
    found, _ = readable("saga_log", rows, _found)
    found += await _find_gone_on(connection, window)
    if found:
        await forget(connection, found)
        await connection.execute(insert(overdue), [_values(each, now) for each in found])
    return found


async def _find_gone_on(connection: AsyncConnection, window: dict[str, datetime]) -> list[OverdueStep]:
    """Return the steps of sagas that waited for an answer when they were passed over; they wait since it was given."""
    if not (gone_on := await saga_waits.take_over(connection, before=window["before"])):
        return []
    values = window | {"sagas": sorted(saga_id for _, saga_id in gone_on)}
    found, _ = readable("saga_log", (await connection.execute(_UNFINISHED_OF, values)).all(), _found)
    steps = [replace(each, since=max(each.since, gone_on[each.saga])) for each in found if each.saga in gone_on]
    return [each for each in steps if each.since <= window["before"]]


async def _advance(connection: AsyncConnection, until: datetime) -> datetime | None:
    """Advance the window's end, and return the former one; None where another replica was faster or nothing is new."""
    former: datetime | None = await connection.scalar(select(watched.c.until))
    if former is None:
        first = insert_into(watched, connection).values(id=1, until=until).on_conflict_do_nothing()
        return _BEGINNING if (await connection.execute(first)).rowcount else None
    moved = await connection.execute(
        update(watched).where(watched.c.until == former, watched.c.until < until).values(until=until)
    )
    return former if moved.rowcount else None


def _ends(rows: Sequence[Row[Any]]) -> list[SagaEnded]:
    """Return the `SagaEnded` messages for these ends; unvalidated, since one bad row may not stop the others."""
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


def _in_window() -> tuple[ColumnElement[bool], ...]:
    return (
        saga_log.c.at > bindparam("since", type_=UtcDateTime()),
        saga_log.c.at <= bindparam("before", type_=UtcDateTime()),
    )


def _has_moved() -> ColumnElement[bool]:
    later = saga_log.alias()
    return exists().where(is_same_step(later), later.c.position > saga_log.c.position)


def _unfinished(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Select the steps that meet these conditions, have not moved on, and whose sagas have not ended; built once."""
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
        *conditions,
        saga_log.c.position.is_not(None),
        saga_log.c.to_state != StepState.CONFIRMED.value,
        ~_has_moved(),
        ~has_ended,
        ~is_known,
    )


def _unclosed() -> Select[Any]:
    """Select the sagas, with their ends, of steps that are still completed although the end is known; built once."""
    noted, other = saga_log.alias(), saga_log.alias()
    is_noted = exists().where(is_same_step(noted), noted.c.to_state == Note.ENDED.value)
    ended = [SagaState.COMPLETED.value, SagaState.FAILED.value]
    of_saga = is_same_saga(other), other.c.saga_state.in_(ended)
    end = select(other.c.saga_state).where(*of_saga).order_by(other.c.id).limit(1).scalar_subquery()
    is_still_completed = (
        saga_log.c.position.is_not(None),
        saga_log.c.to_state == StepState.COMPLETED.value,
        ~_has_moved(),
        ~is_noted,
        exists().where(*of_saga),
    )
    return select(saga_log.c.saga_type, saga_log.c.saga_id, end).where(*_in_window(), *is_still_completed).distinct()


def _contradicted() -> Select[Any]:
    """Select the steps that contradict their sagas' ends; built once."""
    return select(*COLUMNS).where(*_in_window(), is_contradiction)


_WAITS = exists().where(is_same_saga(waits))
_UNFINISHED, _UNCLOSED, _CONTRADICTED = _unfinished(*_in_window(), ~_WAITS), _unclosed(), _contradicted()
_UNFINISHED_OF = _unfinished(saga_log.c.saga_id.in_(bindparam("sagas", expanding=True)))


def _found(row: Row[Any]) -> OverdueStep:
    """Return an entry of the log as an overdue step."""
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
