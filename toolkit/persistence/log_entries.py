"""Constructors for saga log entries: a step's move, the arrival of a join's event, a note, and an end."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.persistence.saga_ends import contradiction
from toolkit.persistence.saga_log import ArrivalEntry, Entry
from toolkit.protocol.fence import Note, StepState
from toolkit.protocol.keys import StreamKey


def move(key: StreamKey, *, service: str, to: str, saga_state: SagaState, at: datetime, **facts: Any) -> Entry:
    """Return the entry that moves a step of a saga to a state; `facts` are the further fields of `Entry`."""
    saga_type, saga_id, step = key
    return Entry(
        service=service,
        saga_type=saga_type,
        saga_id=saga_id,
        step=step,
        to_state=to,
        saga_state=saga_state,
        at=at,
        **facts,
    )


def arrival(key: StreamKey, *, service: str, to: str, saga_state: SagaState, **facts: Any) -> Entry:
    """Return the entry of a join that keeps the event that fills a slot; `facts` are its further fields."""
    saga_type, saga_id, step = key
    return ArrivalEntry(
        service=service, saga_type=saga_type, saga_id=saga_id, step=step, to_state=to, saga_state=saga_state, **facts
    )


def note(
    key: StreamKey,
    note: Note,
    *,
    service: str,
    state: str | None,
    saga_state: SagaState | None,
    at: datetime,
    event: tuple[str | None, str | None] = (None, None),
    **facts: Any,
) -> Entry:
    """Return a note: an entry about a step that does not move it.

    `state` is the step's state, `event` the id and the type of the event that the note is about.
    """
    event_id, event_type = event
    return move(
        key,
        service=service,
        to=note,
        saga_state=saga_state or SagaState.PENDING,
        at=at,
        position=None,
        from_state=state,
        event_id=event_id,
        event_type=event_type,
        **facts,
    )


def late_end(entry: Entry, end: SagaState, *, position: int) -> Entry | None:
    """Return the saga's end, to follow a move that came after it: a confirmation, or a note of the contradiction.

    None means that the end confirms nothing and contradicts nothing.
    """
    is_confirmed = end is SagaState.COMPLETED and entry.to_state == StepState.COMPLETED
    error = contradiction(entry.to_state, end)
    if not (is_confirmed or error):
        return None
    return replace(
        entry,
        position=position if is_confirmed else None,
        from_state=entry.to_state,
        to_state=StepState.CONFIRMED if is_confirmed else Note.ENDED,
        saga_state=end,
        event_id=None,
        event_type=SagaEnded.__name__,
        emitted_id=None,
        emitted_type=None,
        emitted_body=None,
        emitted_version=None,
        attempt=1,
        error=error,
    )
