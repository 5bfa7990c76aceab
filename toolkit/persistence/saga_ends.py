"""The end of a saga, written after each of its steps in this service, and the contradictions that it reveals."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.persistence import direct_statements
from toolkit.persistence.schema import as_stored_by_sqlite, schema_prefix
from toolkit.protocol.fence import Note, StepState
from toolkit.protocol.keys import SagaKey

#: The final states of a step that contradict a completed saga; a running step is checked once it has finished.
_CONTRADICT_SUCCESS = (StepState.FAILED, StepState.FENCED, StepState.COMPENSATED)
_ENDED_WELL = " in a saga that ended completed"
_STILL_COMPLETED = "still completed in a saga that ended failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaEnd:
    """How one saga ended, by the message that announced it."""

    saga_type: str
    saga_id: str
    saga_state: SagaState
    event_id: str
    at: datetime


def contradiction(state: str, end: SagaState) -> str | None:
    """Return how a step's state contradicts its saga's end, if it does; the statement below notes the same text."""
    if end is SagaState.COMPLETED:
        return f"{state}{_ENDED_WELL}" if state in _CONTRADICT_SUCCESS else None
    return _STILL_COMPLETED if state == StepState.COMPLETED else None


def ends_of(messages: Iterable[tuple[str, SagaEnded]], *, at: datetime) -> list[SagaEnd]:
    """Return the ends that these messages, each with its id, announce."""
    return [
        SagaEnd(saga_type=ended.saga_type, saga_id=saga_id, saga_state=state, event_id=event_id, at=at.astimezone(UTC))
        for event_id, ended in messages
        for state, saga_ids in ((SagaState.COMPLETED, ended.completed), (SagaState.FAILED, ended.failed))
        for saga_id in saga_ids
    ]


def _close(source: str, condition: str, *, place: str) -> str:
    """Return an insert of one entry after the last positioned entry of each step of the sagas in `source`.

    It confirms a completed saga's completed steps. After others it notes the end once, as a contradiction if it is one;
    a step that is still completed contradicts a failed saga, unless it ended the saga itself.
    """
    is_same_step = "{0}.saga_id = saga_log.saga_id AND {0}.saga_type = saga_log.saga_type AND {0}.step = saga_log.step"
    went_well = f"ended.saga_state = '{SagaState.COMPLETED.value}'"
    is_confirmed = f"({went_well} AND saga_log.to_state = '{StepState.COMPLETED.value}')"
    contradicts = ", ".join(f"'{state.value}'" for state in _CONTRADICT_SUCCESS)
    ended_here = f"saga_log.saga_state IN ('{SagaState.COMPLETED.value}', '{SagaState.FAILED.value}')"
    return f"""
        INSERT INTO {place}saga_log (service, saga_id, saga_type, step, position, from_state, to_state, saga_state,
            event_id, event_type, attempt, error, at)
        SELECT saga_log.service, saga_log.saga_id, saga_log.saga_type, saga_log.step,
            CASE WHEN {is_confirmed} THEN saga_log.position + 1 END,
            saga_log.to_state,
            CASE WHEN {is_confirmed} THEN '{StepState.CONFIRMED.value}' ELSE '{Note.ENDED.value}' END,
            ended.saga_state, ended.event_id, '{SagaEnded.__name__}', 1,
            CASE WHEN {went_well} AND saga_log.to_state IN ({contradicts})
                    THEN saga_log.to_state || '{_ENDED_WELL}'
                WHEN NOT {went_well} AND saga_log.to_state = '{StepState.COMPLETED.value}' AND NOT {ended_here}
                    THEN '{_STILL_COMPLETED}' END,
            ended.at
        FROM {source}
        WHERE {condition} AND saga_log.saga_id = ended.saga_id AND saga_log.saga_type = ended.saga_type
            AND saga_log.position IS NOT NULL
            -- Scalars, so that no planner hashes the whole log for them.
            AND (SELECT later.id FROM {place}saga_log AS later WHERE {is_same_step.format("later")}
                AND later.position > saga_log.position LIMIT 1) IS NULL
            AND ({is_confirmed}
                OR (NOT ({went_well} AND saga_log.to_state = '{StepState.CONFIRMED.value}')
                    AND (SELECT noted.id FROM {place}saga_log AS noted WHERE {is_same_step.format("noted")}
                        AND noted.to_state = '{Note.ENDED.value}' LIMIT 1) IS NULL))
    """  # noqa: S608 -- constants, and a source with parameters


#: For PostgreSQL, to be formatted with the number of its parameter, the JSON of different sagas' ends, a condition, and
#: what precedes the table's name.
CLOSE = _close(
    "json_to_recordset(${number}::text::json)"
    " AS ended (saga_type text, saga_id text, saga_state text, event_id text, at timestamptz)"
    # Saga by saga, for a planner that has no statistics of the log yet.
    " CROSS JOIN LATERAL (SELECT * FROM {place}saga_log WHERE saga_log.saga_id = ended.saga_id OFFSET 0) AS saga_log",
    "{condition}",
    place="{place}",
)
#: For SQLite, one saga at a time.
_CLOSE_ONE = _close(
    "(SELECT ? AS saga_type, ? AS saga_id, ? AS saga_state, ? AS event_id, ? AS at) AS ended CROSS JOIN saga_log",
    "true",
    place="",
)


async def close_sagas(connection: AsyncConnection, ends: Collection[SagaEnd]) -> None:
    """Write the end of these sagas: `confirmed` after completed steps of completed sagas, else a note."""
    if connection.dialect.name == "sqlite":
        if ends:
            await direct_statements.run_in_thread(connection, lambda driver: close_in_thread(driver, ends), _CLOSE_ONE)
        return
    close_all = CLOSE.format(number=1, condition="true", place=schema_prefix(connection.dialect)) if ends else ""
    while ends:
        these, ends = split(ends)
        await direct_statements.fetch(connection, close_all, [as_json(these)])


def close_in_thread(driver: sqlite3.Connection, ends: Iterable[SagaEnd]) -> None:
    """Write the ends on SQLite's connection."""
    values = ((end.saga_type, end.saga_id, end.saga_state, end.event_id, end.at) for end in ends)
    driver.executemany(_CLOSE_ONE, map(as_stored_by_sqlite, values))


def split(
    ends: Iterable[SagaEnd], *, without: Collection[SagaKey] = frozenset()
) -> tuple[list[SagaEnd], list[SagaEnd]]:
    """Return the first end of each saga, other than these sagas, and the remaining ends.

    One statement does not see what another part of it writes, so it takes a saga once at most.
    """
    first, rest = dict[SagaKey, SagaEnd](), list[SagaEnd]()
    for end in ends:
        key = end.saga_type, end.saga_id
        if key in first or key in without:
            rest.append(end)
        else:
            first[key] = end
    return list(first.values()), rest


def as_json(ends: Sequence[SagaEnd]) -> str:
    """Return the ends as PostgreSQL's statement takes them."""
    return to_json(ends).decode()
