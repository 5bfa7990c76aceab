"""The streams of the saga log: the state of one step of one saga, folded from its entries, for the fence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.encoding import Original
from toolkit.declaration.events import SagaState
from toolkit.persistence.direct_statements import fetch, run_in_thread
from toolkit.persistence.schema import as_utc, schema_prefix
from toolkit.persistence.unreadable_rows import set_aside
from toolkit.protocol.fence import Note, StepState
from toolkit.protocol.joins import GatheredEvent
from toolkit.protocol.keys import SagaKey, StreamKey


class _Row(NamedTuple):
    """What the fence reads of an entry."""

    saga_type: str
    saga_id: str
    step: str
    position: int | None
    to_state: str
    saga_state: str
    event_id: str | None
    emitted_id: str | None
    emitted_type: str | None
    emitted_version: int | None
    emitted_body: str | None
    error: str | None


class _ArrivalRow(NamedTuple):
    """What the fence reads of an entry in a service with joins: also the event that arrived."""

    saga_type: str
    saga_id: str
    step: str
    position: int | None
    to_state: str
    saga_state: str
    event_id: str | None
    emitted_id: str | None
    emitted_type: str | None
    emitted_version: int | None
    emitted_body: str | None
    error: str | None
    event_type: str | None
    event_version: int | None
    event_body: str | None
    traceparent: str | None
    deadline: Any
    started_at: Any
    attempt: int


#: Stands for what precedes the table's name.
_PLACE = "{place}"


# By the id alone, which the index finds; the few entries of other types are separated here.
def _streams(fields: Sequence[str], condition: str, *, place: str = "") -> str:
    return f"SELECT {', '.join(fields)} FROM {place}saga_log WHERE saga_id {condition} ORDER BY id"  # noqa: S608 -- constants


def _on_postgres(fields: Sequence[str]) -> str:
    """Read saga by saga: a planner that has no statistics of the log yet would scan all of it for a large batch."""
    return (
        "SELECT entries.* FROM unnest($1::text[]) AS wanted (id)"  # noqa: S608 -- constants
        f" CROSS JOIN LATERAL ({_streams(fields, '= wanted.id', place=_PLACE)} OFFSET 0) AS entries"
    )


def _on_sqlite(fields: Sequence[str]) -> str:
    return _streams(fields, "IN (SELECT value FROM json_each(?))")


#: By dialect, whether the events that joins have gathered are read, too: the statement, and how to make its rows.
_READS: dict[tuple[str, bool], tuple[str, Callable[[Iterable[Any]], Any]]] = {
    ("sqlite", False): (_on_sqlite(_Row._fields), _Row._make),
    ("sqlite", True): (_on_sqlite(_ArrivalRow._fields), _ArrivalRow._make),
    ("postgresql", False): (_on_postgres(_Row._fields), _Row._make),
    ("postgresql", True): (_on_postgres(_ArrivalRow._fields), _ArrivalRow._make),
}


@dataclass(slots=True)
class Stream:
    """The state of one step of one saga, folded from its entries.

    - `retries`: how many attempts failed since the last position, or the last redrive; the log counts them, not the
      message.
    - `error`: the error of the last positioned entry.
    - `event_ids`: the events that were handled, or ignored as too late, to recognise duplicates.
    - `original`: the event that the step emitted, for its compensation.
    - `gathered`, `deadline`: of a join, the events that fill its slots, and until when it waits for the others.
    - `reminders`: of a step that waits for an answer, how often it has reminded of it.
    - `started_at`: of a join, when its saga began: an answer from outside does not have it.
    - `end`: how the saga ended, if the stream shows it; `has_ended_it`: the step itself ended it;
      `has_announced_it`: with an event of this service, so that this service may announce the end again.
    """

    state: StepState | None = None
    position: int = 0
    saga_state: SagaState | None = None
    retries: int = 0
    error: str | None = None
    event_ids: set[str] = field(default_factory=set)
    original: Original | None = None
    gathered: tuple[GatheredEvent, ...] = ()
    deadline: datetime | None = None
    started_at: datetime | None = None
    reminders: int = 0
    end: SagaState | None = None
    has_ended_it: bool = False
    has_announced_it: bool = False

    @property
    def completed_body(self) -> str | None:
        """The body of the event that the step emitted."""
        return self.original.body if self.original else None

    def advance(self, entry: Any) -> None:
        """Apply an appended `Entry`, or a row of the log."""
        self.saga_state = SagaState(entry.saga_state)
        if self.saga_state.is_ended:
            self.end = self.end or self.saga_state
        if entry.position is None:
            self._note(entry)
            return
        self.state, self.position = StepState(entry.to_state), entry.position
        self.retries, self.error = 0, entry.error
        if entry.event_id:
            self.event_ids.add(entry.event_id)
        if self.state is StepState.COMPLETED:
            self.has_ended_it = self.saga_state.is_ended
            self.has_announced_it = self.has_ended_it and entry.emitted_id is not None
            if entry.emitted_body is not None:
                self.original = Original(entry.emitted_body, entry.emitted_type, entry.emitted_version)
        elif self.state is StepState.EXECUTING or self.state is StepState.GATHERING:
            self._gather(entry)
            if entry.emitted_body is not None:  # a coordinator's stream keeps its start and its plan
                self.original = Original(entry.emitted_body, entry.emitted_type, entry.emitted_version)

    def _gather(self, entry: Any) -> None:
        """Add the event that fills a slot; the first one sets the deadline. Only joins keep the events they take."""
        if (body := getattr(entry, "event_body", None)) is None:
            return
        if not self.gathered and self.state is StepState.GATHERING:
            self.deadline = as_utc(entry.deadline)
        self.started_at = self.started_at or as_utc(entry.started_at)
        arrived = GatheredEvent(entry.event_id, entry.event_type, entry.event_version, body, entry.traceparent)
        self.gathered += (arrived,)

    def _note(self, entry: Any) -> None:
        if entry.to_state == Note.REMINDED:
            self.reminders = max(self.reminders, int(entry.attempt))
        self.retries = 0 if entry.to_state == Note.REDRIVEN else self.retries + (entry.to_state == Note.RETRYING)
        if entry.to_state == Note.IGNORED and entry.event_id:
            self.event_ids.add(entry.event_id)


async def read_streams(
    connection: AsyncConnection, saga_ids: Iterable[str], *, may_commit: bool = False, has_joins: bool = False
) -> dict[StreamKey, Stream]:
    """Read all streams of the sagas with these ids, of any type, in one statement.

    With `may_commit` it begins no transaction that would stay open; with `has_joins` the streams have what joins have
    gathered.
    """
    streams: dict[StreamKey, Stream] = {}
    for row in await _read(connection, saga_ids, may_commit=may_commit, has_joins=has_joins):
        key = row.saga_type, row.saga_id, row.step
        if (stream := streams.get(key)) is None:
            stream = streams[key] = Stream()
        stream.advance(row)
    return streams


async def readable_streams(
    connection: AsyncConnection, saga_ids: Iterable[str]
) -> tuple[dict[StreamKey, Stream], set[SagaKey]]:
    """Read all streams of the sagas with these ids; also return the sagas whose rows can't be read."""
    streams: dict[StreamKey, Stream] = {}
    broken: set[SagaKey] = set()
    for row in await _read(connection, saga_ids):
        saga = row.saga_type, row.saga_id
        try:
            streams.setdefault((*saga, row.step), Stream()).advance(row)
        except ValueError as error:
            if saga not in broken:
                set_aside("saga_log", error, saga_type=row.saga_type, saga_id=row.saga_id)
            broken.add(saga)
    return {key: stream for key, stream in streams.items() if key[:2] not in broken}, broken


async def _read(
    connection: AsyncConnection, saga_ids: Iterable[str], *, may_commit: bool = False, has_joins: bool = False
) -> Iterable[Any]:
    if not (wanted := sorted(set(saga_ids))):  # a batch of SagaEnded alone names no saga
        return ()
    rows: Iterable[Iterable[Any]]
    statement, made = _READS[connection.dialect.name, has_joins]
    if connection.dialect.name == "sqlite":
        values = (json.dumps(wanted),)
        rows = await run_in_thread(
            connection, lambda driver: driver.execute(statement, values).fetchall(), statement, begins=not may_commit
        )
    else:
        statement = statement.replace(_PLACE, schema_prefix(connection.dialect))
        rows = await fetch(connection, statement, [wanted], may_commit=may_commit)
    return map(made, rows)
