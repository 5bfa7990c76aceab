"""Everything that a batch writes to the toolkit's tables, in one round trip: log entries, outbox rows, and deletes.

PostgreSQL takes one statement, whose rows are JSON, one text a table; SQLite one change to its connection's thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC
from functools import cache
from typing import Any

from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import Column, LargeBinary, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.persistence import dead_letters, direct_statements, outbox, saga_ends, saga_log
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_ends import SagaEnd
from toolkit.persistence.saga_log import (
    ARRIVAL_FIELDS,
    ENTRY_FIELDS,
    Entry,
    all_values_of,
    recognizing_taken_positions,
    values_of,
)
from toolkit.persistence.schema import as_stored_by_sqlite, schema_prefix
from toolkit.protocol.fence import SagaState
from toolkit.protocol.keys import SagaKey

_POSTGRES: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_ENDED = ", ".join(f"'{state.value}'" for state in SagaState if state.is_ended)
_UNLESS_PRESENT = " ON CONFLICT (id) DO NOTHING"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWrite:
    """What a batch writes.

    - `rows`: they are added to the outbox where it has none of their ids.
    - `has_arrivals`: some of the entries keep the event that arrived.
    - `sent`: the ids of outbox rows that are deleted.
    - `ends`: the ends of sagas; they are written after the entries.
    - `unread`: nothing is written where the log shows a note or the end of one of these sagas.
    """

    entries: Sequence[Entry] = ()
    has_arrivals: bool = False
    rows: Sequence[OutboxRow] = ()
    sent: Sequence[str] = ()
    ends: Sequence[SagaEnd] = ()
    dead_letters: Sequence[DeadLetter] = ()
    unread: Sequence[SagaKey] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to write, or to look up."""
        return bool(self.entries or self.rows or self.sent or self.ends or self.dead_letters or self.unread)


async def write_batch(connection: AsyncConnection, batch: BatchWrite, *, may_commit: bool = False) -> bool:
    """Write it, unless the log shows a note or the end of one of the `unread` sagas; return whether it was written.

    With `may_commit`, what is one statement commits itself, unless the connection has begun a transaction.

    Raises:
        PositionTakenError: another replica took one of the positions first; nothing was written.
    """
    with recognizing_the_fence(batch):
        if connection.dialect.name == "sqlite":
            is_written = await direct_statements.run_in_thread(connection, writer_to_sqlite(batch), WRITTEN_TO_SQLITE)
        else:
            is_written = await _write_to_postgres(connection, batch, may_commit=may_commit and not batch.dead_letters)
    if is_written:
        await dead_letters.add(connection, batch.dead_letters)
    return is_written


def recognizing_the_fence(batch: BatchWrite) -> AbstractContextManager[None]:
    """Return a block that raises PositionTakenError where the batch's statement finds a position taken."""
    return recognizing_taken_positions(len(batch.entries) + len(batch.ends))


# -- PostgreSQL ----------------------------------------------------------------------------------------------------


async def _write_to_postgres(connection: AsyncConnection, batch: BatchWrite, *, may_commit: bool) -> bool:
    # The parts of one statement don't see each other's rows: an end after an entry of this batch comes later.
    written = {(entry.saga_type, entry.saga_id) for entry in batch.entries} if batch.ends else ()
    ends, later = saga_ends.split(batch.ends, without=written)
    besides = BatchWrite()
    try:
        parts = list(_parts(replace(batch, ends=ends)))
    except PydanticSerializationError:  # a value is no Unicode, or a body is no text
        parts = list(_parts(replace(batch, entries=(), rows=(), ends=ends)))
        besides = batch
    if parts or batch.unread:
        place = schema_prefix(connection.dialect)
        statement = _joined(tuple(part for part, _ in parts), bool(batch.unread), place)
        parameters = [*(parameter for _, parameter in parts), *map(list, zip(*batch.unread, strict=True))]
        is_all = may_commit and not (later or besides.entries or besides.rows)
        rows = await direct_statements.fetch(connection, statement, parameters, may_commit=is_all)
        if batch.unread and rows[0][0]:
            return False
    await saga_log.append(connection, besides.entries)
    await outbox.add(connection, besides.rows)
    await saga_ends.close_sagas(connection, later)
    return True


def _parts(batch: BatchWrite) -> Iterator[tuple[str, Any]]:
    """Yield the statements of which the batch's one consists, each with its parameter."""
    if batch.entries:
        append = _APPEND_ARRIVALS_JSON if batch.has_arrivals else _APPEND_JSON
        yield append, to_json([_with_utc(entry) for entry in batch.entries]).decode()
    if batch.rows:
        yield _ADD_JSON, to_json([_row_values(row) for row in batch.rows]).decode()
    if batch.sent:
        yield "DELETE FROM {place}saga_outbox WHERE id = ANY (${number}::text[]) AND {condition}", list(batch.sent)
    if batch.ends:
        yield saga_ends.CLOSE, saga_ends.as_json(batch.ends)


def _with_utc(entry: Entry) -> Entry:
    """Return the entry with its times in UTC: JSON cuts off an offset's seconds, which few zones ever had."""
    at, deadline, started_at = entry.at, entry.deadline, entry.started_at
    if at.tzinfo is UTC and (not deadline or deadline.tzinfo is UTC) and (not started_at or started_at.tzinfo is UTC):
        return entry
    return replace(
        entry,
        at=at.astimezone(UTC),
        deadline=deadline and deadline.astimezone(UTC),
        started_at=started_at and started_at.astimezone(UTC),
    )


def _row_values(row: OutboxRow) -> dict[str, Any]:
    values = outbox.values_of(row)
    values["due_at"] = row.due_at.astimezone(UTC)
    if time := row.message.timestamp:
        values["occurred_at"] = time.astimezone(UTC)
    return values


@cache
def _joined(parts: tuple[str, ...], looks: bool, place: str) -> str:
    """Return one statement that executes all parts; their parameters are numbered in their order."""
    condition = "NOT (SELECT found FROM look)" if looks else "true"
    numbered = [part.format(number=number, condition=condition, place=place) for number, part in enumerate(parts, 1)]
    if len(parts) == 1 and not looks:
        return numbered[0]
    named = [f"part_{number} AS ({part})" for number, part in enumerate(numbered, 1)]
    if not looks:
        return f"WITH {', '.join(named)} SELECT"
    types, ids = (f"${len(parts) + further}::text[]" for further in (1, 2))
    # A scalar for each saga, so that no planner scans the log for all of them, however little it knows of it.
    look = (
        f"look AS (SELECT EXISTS (SELECT FROM unnest({types}, {ids}) AS saga (type, id) WHERE (SELECT id"  # noqa: S608
        f" FROM {place}saga_log WHERE saga_log.saga_id = saga.id AND saga_log.saga_type = saga.type"
        f" AND (saga_log.position IS NULL OR saga_log.saga_state IN ({_ENDED})) LIMIT 1) IS NOT NULL) AS found)"
    )
    return f"WITH {', '.join([look, *named])} SELECT found FROM look"  # noqa: S608 -- constants


def _insert_json(table: Table, names: Iterable[str]) -> str:
    """Return an insert of the objects in a JSON array, which is the parameter."""
    columns = [table.c[name] for name in names]
    into = ", ".join(column.name for column in columns)
    values = ", ".join(f"convert_to({each.name}, 'UTF8')" if _is_binary(each) else each.name for each in columns)
    types = ", ".join(f"{each.name} {'text' if _is_binary(each) else each.type.compile(_POSTGRES)}" for each in columns)
    given = f"json_to_recordset(${{number}}::text::json) AS given ({types}) WHERE {{condition}}"
    return f"INSERT INTO {{place}}{table.name} ({into}) SELECT {values} FROM {given}"  # noqa: S608 -- the toolkit's own names


def _is_binary(column: Column[Any]) -> bool:
    return isinstance(column.type, LargeBinary)


_APPEND_JSON = _insert_json(saga_log.saga_log, ENTRY_FIELDS)
_APPEND_ARRIVALS_JSON = _insert_json(saga_log.saga_log, ARRIVAL_FIELDS)
_ADD_JSON = _insert_json(outbox.outbox, outbox.outbox.c.keys()) + _UNLESS_PRESENT


# -- SQLite --------------------------------------------------------------------------------------------------------


def writer_to_sqlite(batch: BatchWrite) -> Callable[[sqlite3.Connection], bool]:
    """Return the function that writes the batch, but for its dead letters, in the thread of the connection."""
    append = _ARRIVALS_TO_SQLITE if batch.has_arrivals else WRITTEN_TO_SQLITE
    values = map(all_values_of if batch.has_arrivals else values_of, batch.entries)
    entries = [as_stored_by_sqlite(row) for row in values]
    rows = [as_stored_by_sqlite(outbox.values_of(row).values()) for row in batch.rows]

    def write(driver: sqlite3.Connection) -> bool:
        if any(driver.execute(_LOOK, saga).fetchone() for saga in batch.unread):
            return False
        driver.executemany(append, entries)
        driver.executemany(_ADD, rows)
        driver.executemany("DELETE FROM saga_outbox WHERE id = ?", [(row_id,) for row_id in batch.sent])
        saga_ends.close_in_thread(driver, batch.ends)
        return True

    return write


def _insert_values(table: Table, names: Sequence[str]) -> str:
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608 -- the toolkit's own names


#: The statement that errors of the write name.
WRITTEN_TO_SQLITE = _insert_values(saga_log.saga_log, ENTRY_FIELDS)
_ARRIVALS_TO_SQLITE = _insert_values(saga_log.saga_log, ARRIVAL_FIELDS)
_ADD = _insert_values(outbox.outbox, outbox.outbox.c.keys()) + _UNLESS_PRESENT
_LOOK = (
    "SELECT 1 FROM saga_log WHERE saga_type = ? AND saga_id = ? "  # noqa: S608 -- the toolkit's own states
    f"AND (position IS NULL OR saga_state IN ({_ENDED})) LIMIT 1"
)
