"""The streams of the saga log: the state of one step of one saga, folded from its entries, for the fence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.encoding import Original
from toolkit.declaration.events import SagaState
from toolkit.persistence.direct_statements import fetch, run_in_thread
from toolkit.persistence.unreadable_rows import set_aside
from toolkit.protocol.fence import Note, StepState
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
    emitted_type: str | None
    emitted_version: int | None
    emitted_body: str | None
    error: str | None


# By the id alone, which the index finds; the few entries of other types are separated here.
_STREAMS = f"SELECT {', '.join(_Row._fields)} FROM saga_log WHERE saga_id {{}} ORDER BY id"  # noqa: S608 -- constants
#: Saga by saga: a planner that has no statistics of the log yet would scan all of it for a large batch.
_ON_POSTGRES = (
    "SELECT entries.* FROM unnest($1::text[]) AS wanted (id)"  # noqa: S608 -- constants
    f" CROSS JOIN LATERAL ({_STREAMS.format('= wanted.id')} OFFSET 0) AS entries"
)
_ON_SQLITE = _STREAMS.format("IN (SELECT value FROM json_each(?))")


@dataclass(slots=True)
class Stream:
    """The state of one step of one saga, folded from its entries.

    - `retries`: how many attempts failed since the last position, or the last redrive; the log counts them, not the
      message.
    - `error`: the error of the last positioned entry.
    - `event_ids`: the events that were handled, or ignored as too late, to recognise duplicates.
    - `original`: the event that the step emitted, for its compensation.
    - `end`: how the saga ended, if the stream shows it; `has_ended_it`: the step itself ended it.
    """

    state: StepState | None = None
    position: int = 0
    saga_state: SagaState | None = None
    retries: int = 0
    error: str | None = None
    event_ids: set[str] = field(default_factory=set)
    original: Original | None = None
    end: SagaState | None = None
    has_ended_it: bool = False

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
        # A coordinator's own stream keeps the starting event, and the plan, while it is executing.
        keeps = self.state is StepState.COMPLETED or self.state is StepState.EXECUTING
        if keeps and entry.emitted_body is not None:
            self.original = Original(entry.emitted_body, entry.emitted_type, entry.emitted_version)

    def _note(self, entry: Any) -> None:
        self.retries = 0 if entry.to_state == Note.REDRIVEN else self.retries + (entry.to_state == Note.RETRYING)
        if entry.to_state == Note.IGNORED and entry.event_id:
            self.event_ids.add(entry.event_id)


async def read_streams(
    connection: AsyncConnection, saga_ids: Iterable[str], *, may_commit: bool = False
) -> dict[StreamKey, Stream]:
    """Read all streams of the sagas with these ids, of any type, in one statement.

    With `may_commit` it begins no transaction that would stay open.
    """
    streams: dict[StreamKey, Stream] = {}
    for row in await _read(connection, saga_ids, may_commit=may_commit):
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


async def _read(connection: AsyncConnection, saga_ids: Iterable[str], *, may_commit: bool = False) -> Iterable[_Row]:
    if not (wanted := sorted(set(saga_ids))):  # a batch of SagaEnded alone names no saga
        return ()
    rows: Iterable[Iterable[Any]]
    if connection.dialect.name == "sqlite":
        values = (json.dumps(wanted),)
        rows = await run_in_thread(
            connection, lambda driver: driver.execute(_ON_SQLITE, values).fetchall(), _ON_SQLITE, begins=not may_commit
        )
    else:
        rows = await fetch(connection, _ON_POSTGRES, [wanted], may_commit=may_commit)
    return map(_Row._make, rows)
