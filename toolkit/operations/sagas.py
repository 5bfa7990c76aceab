"""Replays, nudges and aborts one saga in one service's database, whether the service runs or not.

Each call is one transaction with the outbox rows, the notes in the saga log and the audit entries; the service's own
relay publishes the rows. A repeated call is harmless, because of the fences.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import Event, SagaEnded, SagaState
from toolkit.declaration.service import Service
from toolkit.errors import AmbiguousSagaError
from toolkit.ids import derived_id, new_id
from toolkit.messaging.envelope import Envelope, WireMessage, abort_request
from toolkit.operations.outcomes import REFUSED, BatchResult, SagaOutcome
from toolkit.persistence import audit_log, emitted_events, log_entries, outbox, saga_log, saga_log_queries
from toolkit.persistence.audit_log import Change, Operator
from toolkit.persistence.database import Database
from toolkit.persistence.emitted_events import EmittedEvent
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_log import Entry
from toolkit.persistence.saga_log_streams import Stream, read_streams
from toolkit.protocol.fence import Note


async def replay(
    database: Database, service: Service, saga_id: str, by: Operator, *, now: datetime, saga_type: str | None = None
) -> BatchResult[SagaOutcome]:
    """Emit each step's last event of a saga again under its id, and the saga's end if this service ended it.

    The fences make it harmless, for ended sagas, too.

    Raises:
        AmbiguousSagaError: no type is named, and sagas of several types have this id.
    """
    async with database.transaction() as session:
        connection = await session.connection()
        timeline = await _timeline(connection, saga_id, saga_type)
        found = await emitted_events.last_of(connection, saga_id, timeline[-1].saga_type) if timeline else []
        known = [each for each in found if each.emitted_type in service.sendable()]
        ends = [_row(_end(each, now), SagaEnded, now) for each in known if SagaState(each.saga_state).is_ended]
        await _send(connection, known, service, Note.REPLAYED, by, now, besides=ends)
    return BatchResult(rows=[_emitted_row(each, Note.REPLAYED, is_known=each in known) for each in found])


async def nudge(
    database: Database, service: Service, saga_id: str, by: Operator, *, now: datetime, saga_type: str | None = None
) -> BatchResult[SagaOutcome]:
    """Emit each step's last event of a saga again, as the watchdog does; refused when the saga has ended.

    An unknown saga has no rows.

    Raises:
        AmbiguousSagaError: no type is named, and sagas of several types have this id.
    """
    async with database.transaction() as session:
        connection = await session.connection()
        timeline = await _timeline(connection, saga_id, saga_type)
        if not timeline:
            return BatchResult(rows=[])
        if end := _end_of(timeline):
            return _refused(timeline, f"saga {saga_id} has ended ({end}): nothing is under way here")
        found = await emitted_events.last_of(connection, saga_id, timeline[-1].saga_type)
        if not found:
            return _refused(
                timeline, f"this service has emitted no event of saga {saga_id} yet: nudge the service before it"
            )
        known = [each for each in found if each.emitted_type in service.sendable()]
        await _send(connection, known, service, Note.NUDGED, by, now)
    return BatchResult(rows=[_emitted_row(each, Note.NUDGED, is_known=each in known) for each in found])


async def abort(
    database: Database, saga_id: str, by: Operator, *, now: datetime, saga_type: str | None = None
) -> BatchResult[SagaOutcome]:
    """Ask all services to refuse a saga's steps that have not begun; refused when this service knows its end.

    An unknown saga has no rows: its abort would be the first entry of a saga that never started.

    Raises:
        AmbiguousSagaError: no type is named, and sagas of several types have this id.
    """
    async with database.transaction() as session:
        connection = await session.connection()
        timeline = await _timeline(connection, saga_id, saga_type)
        if not timeline:
            return BatchResult(rows=[])
        if end := _end_of(timeline):
            return _refused(timeline, f"saga {saga_id} has ended ({end}): there is nothing to abort")
        last = timeline[-1]
        began, trace = timeline[0].at, last.traceparent
        request = abort_request(last.saga_type, saga_id, by.reason, now=now, traceparent=trace, started_at=began)
        await outbox.add(connection, [OutboxRow(id=new_id(), message=request, due_at=now)])
        await saga_log.append(connection, [_abort_note(last, by, now)])
        await audit_log.add(connection, [Change("abort", str(request.type), last.saga_type, saga_id)], by, now=now)
    return BatchResult(
        rows=[_row_about(last, event_type=request.type, event_id=request.message_id, outcome=Note.ABORTED)]
    )


async def _timeline(connection: AsyncConnection, saga_id: str, saga_type: str | None) -> Sequence[Entry]:
    """Return the saga's log entries."""
    timeline = await saga_log_queries.timeline(connection, saga_id, saga_type)
    types = sorted({entry.saga_type for entry in timeline})
    if len(types) > 1:
        raise AmbiguousSagaError(saga_id, types)
    return timeline


async def _send(
    connection: AsyncConnection,
    known: Sequence[EmittedEvent],
    service: Service,
    note: Note,
    by: Operator,
    now: datetime,
    *,
    besides: Sequence[OutboxRow] = (),
) -> None:
    """Send these events again, and record the operator in the log and the audit."""
    streams = await read_streams(connection, {each.saga_id for each in known})
    sendable, final = service.sendable(), service.final_steps
    kinds = [(each, sendable[each.emitted_type]) for each in known]
    rows = [_row(each.as_sent(kind, nudge=new_id(), final_steps=final), kind, now) for each, kind in kinds]
    notes = [_note(each, streams[each.key], note, by, now) for each in known]
    verb = {Note.REPLAYED: "replay", Note.NUDGED: "nudge"}[note]
    await outbox.add(connection, [*rows, *besides])
    await saga_log.append(connection, notes)
    await audit_log.add(
        connection, [Change(verb, each.emitted_type, each.saga_type, each.saga_id) for each in known], by, now=now
    )


def _end_of(timeline: Sequence[Entry]) -> SagaState | None:
    """Return how the saga ended, if this service's entries show it."""
    states = (SagaState(entry.saga_state) for entry in timeline)
    return next((state for state in states if state.is_ended), None)


def _note(emitted_event: EmittedEvent, stream: Stream, note: Note, by: Operator, now: datetime) -> Entry:
    return log_entries.note(
        emitted_event.key,
        note,
        service=emitted_event.service,
        state=stream.state,
        saga_state=stream.saga_state,
        event=(emitted_event.event_id, emitted_event.event_type),
        error=by.reason or None,
        at=now,
    )


def _abort_note(last: Entry, by: Operator, now: datetime) -> Entry:
    return log_entries.note(
        (last.saga_type, last.saga_id, last.step),
        Note.ABORTED,
        service=last.service,
        state=last.to_state if last.position else last.from_state,
        saga_state=SagaState(last.saga_state),
        error=by.reason,
        at=now,
    )


def _row(message: WireMessage, kind: type[Event], now: datetime) -> OutboxRow:
    return OutboxRow(id=new_id(), message=message, due_at=now, optional=kind.__optional__)


def _end(emitted_event: EmittedEvent, now: datetime) -> WireMessage:
    """Return the control message of this saga's end; the original one was about many sagas."""
    outcome = "completed" if emitted_event.saga_state == SagaState.COMPLETED else "failed"
    ended = SagaEnded.model_validate({"saga_type": emitted_event.saga_type, outcome: (emitted_event.saga_id,)})
    event_id = derived_id(emitted_event.saga_type, emitted_event.saga_id, SagaEnded.__name__)
    envelope = Envelope.of(SagaEnded, event_id=event_id, saga=(emitted_event.saga_type, ""), occurred_at=now)
    return envelope.carry(ended)


def _emitted_row(emitted_event: EmittedEvent, outcome: Note, *, is_known: bool) -> SagaOutcome:
    return SagaOutcome(
        service=emitted_event.service,
        saga_type=emitted_event.saga_type,
        saga_id=emitted_event.saga_id,
        step=emitted_event.step,
        event_type=emitted_event.emitted_type,
        event_id=emitted_event.emitted_id,
        outcome=outcome if is_known else REFUSED,
        why=None if is_known else f"this service no longer declares {emitted_event.emitted_type}",
    )


def _refused(timeline: Sequence[Entry], why: str) -> BatchResult[SagaOutcome]:
    return BatchResult(rows=[_row_about(timeline[-1], outcome=REFUSED, why=why)])


def _row_about(
    last: Entry,
    *,
    outcome: str,
    event_type: str | None = None,
    event_id: str | None = None,
    why: str | None = None,
) -> SagaOutcome:
    return SagaOutcome(
        service=last.service,
        saga_type=last.saga_type,
        saga_id=last.saga_id,
        step=last.step,
        event_type=event_type,
        event_id=event_id,
        outcome=outcome,
        why=why,
    )
