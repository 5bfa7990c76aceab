"""Everything that a batch writes to the toolkit's tables, in one round trip: log entries, outbox rows, and deletes.

PostgreSQL takes one statement, whose rows are JSON, one text a table; SQLite one change to its connection's thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from functools import cache
from operator import attrgetter
from typing import Any

from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import Column, LargeBinary, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.persistence import direct_statements, outbox, saga_log
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_log import ENTRY_FIELDS, Entry, SagaKey, fenced
from toolkit.persistence.schema import as_stored_by_sqlite
from toolkit.protocol.fence import SagaState

_DIALECT: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_ENDED = ", ".join(f"'{state.value}'" for state in SagaState if state.is_ended)


async def write_batch(
    connection: AsyncConnection,
    *,
    entries: Sequence[Entry] = (),
    rows: Sequence[OutboxRow] = (),
    sent: Sequence[str] = (),
    unended: Sequence[SagaKey] = (),
) -> bool:
    """Append entries to the log, add rows to the outbox where it has none of their ids, and delete the sent rows.

    Return whether the log showed the end of one of the `unended` sagas before; without any, it is not looked up.

    Raises:
        PositionTakenError: another replica took a position of one of the entries first; nothing was written.
    """
    with fenced(len(entries)):
        if connection.dialect.name == "sqlite":
            return await _write_to_sqlite(connection, entries, rows, sent, unended)
        return await _write_to_postgres(connection, entries, rows, sent, unended)


# -- PostgreSQL ----------------------------------------------------------------------------------------------------


async def _write_to_postgres(
    connection: AsyncConnection,
    entries: Sequence[Entry],
    rows: Sequence[OutboxRow],
    sent: Sequence[str],
    unended: Sequence[SagaKey],
) -> bool:
    if (texts := _as_json(entries, rows)) is None:
        await saga_log.append(connection, entries)
        await outbox.add(connection, rows)
        entries, rows = (), ()
    parameters: list[Any] = texts or []
    parameters += [list(sent)] if sent else []
    parameters += [*map(list, zip(*unended, strict=True))] if unended else []
    if not parameters:
        return False
    statement = _statement(bool(entries), bool(rows), bool(sent), bool(unended))
    found = await direct_statements.fetch(connection, statement, parameters)
    return bool(unended) and bool(found[0][0])


def _as_json(entries: Sequence[Entry], rows: Sequence[OutboxRow]) -> list[str] | None:
    """Return the JSON of those that there are; None where JSON can't hold them: a body that is no text, say."""
    try:
        texts = [to_json(_with_utc(entries)).decode()] if entries else []
        return texts + ([to_json([_row_values(row) for row in rows]).decode()] if rows else [])
    except PydanticSerializationError:
        return None


def _with_utc(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with their times in UTC: JSON cuts off an offset's seconds, which few zones ever had."""
    return [entry if _is_in_utc(entry) else _in_utc(entry) for entry in entries]


def _is_in_utc(entry: Entry) -> bool:
    deadline, started_at = entry.deadline, entry.started_at
    return (
        entry.at.tzinfo is UTC
        and (deadline is None or deadline.tzinfo is UTC)
        and (started_at is None or started_at.tzinfo is UTC)
    )


def _in_utc(entry: Entry) -> Entry:
    at, deadline, started_at = (time and time.astimezone(UTC) for time in (entry.at, entry.deadline, entry.started_at))
    assert at  # noqa: S101 -- each entry has its time
    return replace(entry, at=at, deadline=deadline, started_at=started_at)


def _row_values(row: OutboxRow) -> dict[str, Any]:
    values = outbox.values_of(row)
    for name in ("occurred_at", "due_at"):
        if values[name] is not None:
            values[name] = values[name].astimezone(UTC)
    return values


@cache
def _statement(has_entries: bool, has_rows: bool, has_sent: bool, has_unended: bool) -> str:
    """Return the one statement that has these parts; its parameters are in the same order."""
    parts = [_insert(saga_log.saga_log, ENTRY_FIELDS)] if has_entries else []
    parts += [_insert(outbox.outbox, outbox.outbox.c.keys()) + " ON CONFLICT (id) DO NOTHING"] if has_rows else []
    parts += ["DELETE FROM outbox WHERE id = ANY (${}::text[])"] if has_sent else []
    numbered = [part.format(number) for number, part in enumerate(parts, 1)]
    if len(parts) == 1 and not has_unended:
        return numbered[0]
    # The parts see the tables as they were before the statement, and so does the question about ends.
    with_parts = "WITH " + ", ".join(f"part_{i} AS ({part})" for i, part in enumerate(numbered)) if numbered else ""
    ids, types = len(parts) + 2, len(parts) + 1
    look = (
        f"EXISTS (SELECT FROM saga_log JOIN unnest(${types}::text[], ${ids}::text[]) AS saga (type, id)"
        f" ON saga_log.saga_id = saga.id AND saga_log.saga_type = saga.type"
        f" WHERE saga_log.saga_state IN ({_ENDED}))"
    )
    return f"{with_parts} SELECT {look if has_unended else 'false'}"


def _insert(table: Table, names: Sequence[str]) -> str:
    """Return an insert of the rows in a parameter, which is a JSON array of objects."""
    columns = [table.c[name] for name in names]
    types = ", ".join(f"{column.name} {_type_in_json(column)}" for column in columns)
    values = ", ".join(_from_json(column) for column in columns)
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) "  # noqa: S608 -- the toolkit's own names
        f"SELECT {values} FROM json_to_recordset(${{}}::text::json) AS given ({types})"
    )


def _type_in_json(column: Column[Any]) -> str:
    return "text" if isinstance(column.type, LargeBinary) else str(column.type.compile(_DIALECT))


def _from_json(column: Column[Any]) -> str:
    return f"convert_to({column.name}, 'UTF8')" if isinstance(column.type, LargeBinary) else column.name


# -- SQLite --------------------------------------------------------------------------------------------------------

_entry_values = attrgetter(*ENTRY_FIELDS)


async def _write_to_sqlite(
    connection: AsyncConnection,
    entries: Sequence[Entry],
    rows: Sequence[OutboxRow],
    sent: Sequence[str],
    unended: Sequence[SagaKey],
) -> bool:
    if not (entries or rows or sent or unended):
        return False
    log_values = [as_stored_by_sqlite(_entry_values(entry)) for entry in entries]
    row_values = [as_stored_by_sqlite(tuple(outbox.values_of(row).values())) for row in rows]

    def write(driver: sqlite3.Connection) -> bool:
        is_ended = any(driver.execute(_LOOK, saga).fetchone() for saga in unended)
        driver.executemany(_APPEND, log_values)
        driver.executemany(_ADD, row_values)
        driver.executemany(_DELETE, [(row_id,) for row_id in sent])
        return is_ended

    return await direct_statements.run_in_thread(connection, write, _APPEND)


def _insert_values(table: Table, names: Sequence[str]) -> str:
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608 -- the toolkit's own names


_LOOK = f"SELECT 1 FROM saga_log WHERE saga_type = ? AND saga_id = ? AND saga_state IN ({_ENDED}) LIMIT 1"  # noqa: S608
_APPEND = _insert_values(saga_log.saga_log, ENTRY_FIELDS)
_ADD = _insert_values(outbox.outbox, outbox.outbox.c.keys()) + " ON CONFLICT (id) DO NOTHING"
_DELETE = "DELETE FROM outbox WHERE id = ?"
