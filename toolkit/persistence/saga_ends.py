"""The end of a saga, written after each of its steps in this service, and the contradictions that it reveals."""

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

#: The final states of a step that contradict a completed saga; a running step is checked once it has finished.
_CONTRADICT_SUCCESS = (StepState.FAILED, StepState.FENCED, StepState.COMPENSATED)
_ENDED_WELL = " in a saga that ended completed"
_STILL_COMPLETED = "still completed in a saga that ended failed"


def contradiction(state: str, end: SagaState) -> str | None:
    """Return how a step's state contradicts its saga's end, if it does; `close_sagas` notes the same text."""
    if end is SagaState.COMPLETED:
        return f"{state}{_ENDED_WELL}" if state in _CONTRADICT_SUCCESS else None
    return _STILL_COMPLETED if state == StepState.COMPLETED else None


def _insert_after_last(columns: dict[str, Any], *conditions: ColumnElement[bool]) -> Insert:
    """Build an insert of one entry after each step's last positioned one, in these sagas, where the conditions hold.

    Its parameters are `saga_ids`, `of_type`, `event_id` and `now`; columns that are not given are copied from the entry
    before.
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
    entries = select(*values.values()).where(of_sagas, saga_log.c.position.is_not(None), is_last, *conditions)
    return insert(saga_log).from_select(list(values), entries)


def _is_noted() -> ColumnElement[bool]:
    """The condition that the end is noted on the step; a scalar, so that no planner hashes the whole log for it."""
    noted = saga_log.alias()
    own = select(noted.c.id).where(is_same_step(noted), noted.c.to_state == Note.ENDED)
    return own.limit(1).scalar_subquery().is_not(None)


def _confirm() -> Insert:
    """Confirm a completed saga's completed steps; note the end once after others, as a contradiction if it is one."""
    state = saga_log.c.to_state
    is_completed = state == StepState.COMPLETED
    columns = {
        "position": case((is_completed, saga_log.c.position + 1), else_=null()),
        "from_state": state,
        "to_state": case((is_completed, literal(StepState.CONFIRMED.value)), else_=literal(Note.ENDED.value)),
        "saga_state": literal(SagaState.COMPLETED.value),
        "error": case((state.in_(_CONTRADICT_SUCCESS), state + literal(_ENDED_WELL)), else_=null()),
    }
    return _insert_after_last(columns, is_completed | ((state != StepState.CONFIRMED) & ~_is_noted()))


def _note_failed() -> Insert:
    """Note the end once per step; a step that is still completed contradicts it, unless it ended the saga itself."""
    ended_here = saga_log.c.saga_state.in_([SagaState.COMPLETED.value, SagaState.FAILED.value])
    still_completed = (saga_log.c.to_state == StepState.COMPLETED) & ~ended_here
    columns = {
        "position": null(),
        "from_state": saga_log.c.to_state,
        "to_state": literal(Note.ENDED.value),
        "saga_state": literal(SagaState.FAILED.value),
        "error": case((still_completed, literal(_STILL_COMPLETED)), else_=null()),
    }
    return _insert_after_last(columns, ~_is_noted())


_CONFIRM, _NOTE_FAILED = _confirm(), _note_failed()


async def close_sagas(connection: AsyncConnection, event_id: str, ended: SagaEnded, *, now: datetime) -> None:
    """Write the end of these sagas of one type: `confirmed` after completed steps of completed sagas, else a note."""
    known = {"of_type": ended.saga_type, "event_id": event_id, "now": now}
    for statement, saga_ids in ((_CONFIRM, ended.completed), (_NOTE_FAILED, ended.failed)):
        if saga_ids:
            await connection.execute(statement, known | {"saga_ids": saga_ids})
