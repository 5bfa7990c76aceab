"""The end of a saga, as this service writes it behind each of its steps, and the contradictions that it shows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Insert, String, bindparam, case, insert, literal, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.persistence.id_lists import OneOf
from toolkit.persistence.saga_log import is_same_step, saga_log
from toolkit.persistence.schema import UtcDateTime
from toolkit.protocol.fence import Note, StepState

#: What a step may not be left as in a saga that ended well; one that is under way says so once it is over.
_CONTRADICT_SUCCESS = (StepState.FAILED, StepState.FENCED, StepState.COMPENSATED)
_ENDED_WELL = " in a saga that ended completed"
_STILL_COMPLETED = "still completed in a saga that ended failed"


def contradiction(state: str, end: SagaState) -> str | None:
    """Return how a step contradicts its saga's end, if it does; the notes of `close_sagas` say the same."""
    if end is SagaState.COMPLETED:
        return f"{state}{_ENDED_WELL}" if state in _CONTRADICT_SUCCESS else None
    return _STILL_COMPLETED if state == StepState.COMPLETED else None


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


async def close_sagas(connection: AsyncConnection, event_id: str, ended: SagaEnded, *, now: datetime) -> None:
    """Write that these sagas of one type have ended: `confirmed` behind what is completed if well, else a note."""
    known = {"of_type": ended.saga_type, "event_id": event_id, "now": now}
    for statement, saga_ids in ((_CONFIRM, ended.completed), (_NOTE_FAILED, ended.failed)):
        if saga_ids:
            await connection.execute(statement, known | {"saga_ids": saga_ids})
