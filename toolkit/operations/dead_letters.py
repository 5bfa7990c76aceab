"""Redrives and drops the dead letters of one service, whether the service runs or not.

Each call is one batch: one transaction with the change, the notes in the saga log and the audit entries. A redriven
message becomes an outbox row, which the service's own relay publishes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaState
from toolkit.errors import AmbiguousSagaError
from toolkit.ids import new_id
from toolkit.messaging.envelope import ATTEMPT, BROKERS_OWN, WireMessage
from toolkit.operations.outcomes import REFUSED, BatchResult, DeadLetterOutcome
from toolkit.persistence import (
    audit_log,
    dead_letter_queries,
    dead_letters,
    log_entries,
    outbox,
    saga_log,
    suspect_messages,
)
from toolkit.persistence.audit_log import Change, Operator
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter, Selection
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_log import Entry
from toolkit.persistence.saga_log_streams import Stream, read_streams
from toolkit.protocol.fence import Note
from toolkit.protocol.keys import StreamKey

#: The most dead letters in one transaction: each may be as large as the broker's limit for a message.
DEAD_LETTERS_AT_ONCE = 100

#: Never a saga's id: for a message without a correlation id the broker's client would generate one.
_NO_SAGA = "-"

Streams = dict[StreamKey, Stream]


async def redrive(
    database: Database,
    which: Selection,
    by: Operator,
    *,
    queue: str,
    now: datetime,
    after: str = "",
    dry_run: bool = False,
) -> BatchResult[DeadLetterOutcome]:
    """Send dead letters to their service's own queue again; their steps get all their attempts again.

    A dead letter of an ended saga is refused. An unreadable one is sent: the current release may read it; otherwise
    it becomes a dead letter again.

    Raises:
        AmbiguousSagaError: the selection names an id without a type, and sagas of several types have it.
    """
    if dry_run:
        async with database.reading() as connection:
            found = await _choose(connection, which, after, locked=False)
            streams = await read_streams(connection, _sagas(found))
        return _batch(found, [each for each in found if not _refusal(each, streams)], streams, "would be redriven")
    async with database.transaction() as session:
        connection = await session.connection()
        found = await _choose(connection, which, after, locked=True)
        streams = await read_streams(connection, _sagas(found))
        taken = await dead_letters.take(connection, [each for each in found if not _refusal(each, streams)])
        rows = [OutboxRow(id=new_id(), message=_original(each), due_at=now, destination=queue) for each in taken]
        await outbox.add(connection, rows)
        await suspect_messages.unmark(connection, [suspect_messages.fingerprint(each.message) for each in taken])
        await _record(connection, taken, streams, Note.REDRIVEN, by, now)
    return _batch(found, taken, streams, Note.REDRIVEN)


async def drop(
    database: Database, which: Selection, by: Operator, *, now: datetime, after: str = "", dry_run: bool = False
) -> BatchResult[DeadLetterOutcome]:
    """Delete dead letters for good, with a note in the saga log and the audit.

    Raises:
        AmbiguousSagaError: the selection names an id without a type, and sagas of several types have it.
    """
    if dry_run:
        async with database.reading() as connection:
            found = await _choose(connection, which, after, locked=False)
        return _batch(found, found, {}, "would be dropped")
    async with database.transaction() as session:
        connection = await session.connection()
        found = await _choose(connection, which, after, locked=True)
        streams = await read_streams(connection, _sagas(found))
        taken = await dead_letters.take(connection, found)
        await _record(connection, taken, streams, Note.DROPPED, by, now)
    return _batch(found, taken, {}, Note.DROPPED)


async def _choose(connection: AsyncConnection, which: Selection, after: str, *, locked: bool) -> list[DeadLetter]:
    if which.saga_id is not None and which.saga_type is None:
        types = await dead_letter_queries.types(connection, which)
        if len(types) > 1:
            raise AmbiguousSagaError(which.saga_id, types)
    return await dead_letters.choose(connection, which, after=after, most=DEAD_LETTERS_AT_ONCE, locked=locked)


def _sagas(dead_letters: Iterable[DeadLetter]) -> list[str]:
    return [dead_letter.message.correlation_id for dead_letter in dead_letters if dead_letter.message.correlation_id]


def _refusal(dead_letter: DeadLetter, streams: Streams) -> str | None:
    """Return why a dead letter can't be redriven, or None."""
    saga_id = dead_letter.message.correlation_id
    of_types: dict[str, SagaState | None] = {}
    for (saga_type, of_saga, _), stream in streams.items():
        if of_saga == saga_id and dead_letter.saga_type in (saga_type, None):
            has_ended = stream.saga_state is not None and stream.saga_state.is_ended
            of_types[saga_type] = stream.saga_state if has_ended else of_types.get(saga_type)
    # For a dead letter without a type one open saga with its id suffices.
    ended = next(iter(of_types.values()), None) if all(of_types.values()) else None
    return f"saga {saga_id} has ended ({ended}): its dead letter can only be dropped" if ended else None


def _batch(
    found: Sequence[DeadLetter], taken: Sequence[DeadLetter], streams: Streams, outcome: str
) -> BatchResult[DeadLetterOutcome]:
    ids = {dead_letter.id for dead_letter in taken}
    rows = [_outcome(each, outcome if each.id in ids else REFUSED, _refusal(each, streams)) for each in found]
    return BatchResult(rows=rows, after=found[-1].id if len(found) == DEAD_LETTERS_AT_ONCE else None)


def _outcome(dead_letter: DeadLetter, outcome: str, why: str | None) -> DeadLetterOutcome:
    return DeadLetterOutcome(
        id=dead_letter.id,
        saga_type=dead_letter.saga_type,
        saga_id=dead_letter.message.correlation_id,
        step=dead_letter.step,
        reason=dead_letter.reason,
        outcome=outcome,
        why=why if outcome == REFUSED else None,
    )


def _original(dead_letter: DeadLetter) -> WireMessage:
    """Return the message as the service received it first.

    Through the service's own exchange the routing key names no event, so the type is set; a missing id or time is the
    dead letter's.
    """
    message = dead_letter.message
    left_out = (*BROKERS_OWN, ATTEMPT) if dead_letter.step else BROKERS_OWN  # the step's attempts count from 1
    headers = {name: value for name, value in message.headers.items() if not name.startswith(left_out)}
    return WireMessage(
        body=message.body,
        routing_key=message.routing_key,
        message_id=message.message_id or dead_letter.id,
        correlation_id=message.correlation_id or _NO_SAGA,
        type=message.type or message.routing_key.rpartition(".")[2],
        timestamp=message.timestamp or dead_letter.first_at or dead_letter.at,
        headers=headers,
    )


async def _record(
    connection: AsyncConnection, taken: Sequence[DeadLetter], streams: Streams, note: Note, by: Operator, now: datetime
) -> None:
    """Record the outcome of these dead letters in the saga log and the audit."""
    verb = {Note.REDRIVEN: "redrive", Note.DROPPED: "drop"}[note]
    changes = [Change(verb, each.id, each.saga_type, each.message.correlation_id) for each in taken]
    await saga_log.append(connection, [_log_entry(each, streams, note, by, now) for each in taken if each.step])
    await audit_log.add(connection, changes, by, now=now)


def _log_entry(dead_letter: DeadLetter, streams: Streams, note: Note, by: Operator, now: datetime) -> Entry:
    """Return the log entry for a step's dead letter, which always names its saga."""
    key = (dead_letter.saga_type or "", str(dead_letter.message.correlation_id), str(dead_letter.step))
    stream = streams.get(key, Stream())
    return log_entries.note(
        key,
        note,
        service=dead_letter.service,
        state=stream.state,
        saga_state=stream.saga_state,
        event=(dead_letter.message.message_id, dead_letter.message.type),
        error=by.reason,
        at=now,
    )
