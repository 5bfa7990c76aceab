"""One saga at one service, and its dead letters, with sensitive fields redacted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.contract import EventContract
from toolkit.declaration.redaction import REDACTED, UNKNOWN, has_sensitive_fields, redacted_body, redacted_object
from toolkit.declaration.text_redaction import redact
from toolkit.errors import AmbiguousSagaError
from toolkit.ids import trace_id_of
from toolkit.messaging.envelope import BROKERS_OWN, HEADERS
from toolkit.persistence import dead_letter_queries, outbox, overdue_steps, saga_log_queries
from toolkit.persistence.dead_letters import Selection
from toolkit.persistence.saga_log import ArrivalEntry
from toolkit.protocol.dead_letter_rows import DeadLetterGroup, DeadLetterSummary, WholeDeadLetter
from toolkit.protocol.log_entry import DetailedEntry
from toolkit.protocol.pending_rows import OverdueStep, UnsentMessage

#: The events that a service consumes and emits, by name.
Declared = Mapping[str, EventContract]

#: The most rows of the outbox, and the most dead letters, of one saga.
_MOST = 100
#: The part of an error that a group shows.
_LONGEST_ERROR = 200
#: How many bodies are in memory at once: each may be as large as the broker's limit for a message.
_AT_ONCE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaView:
    """A service's rows about a saga; empty for an unknown saga."""

    entries: list[DetailedEntry] = field(default_factory=list)
    outbox: list[UnsentMessage] = field(default_factory=list)
    dead_letters: list[DeadLetterSummary] = field(default_factory=list)
    overdue: list[OverdueStep] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        """The saga types in these rows; one, unless sagas of several types share the id."""
        parts = (self.entries, self.outbox, self.dead_letters, self.overdue)
        return sorted({row.saga_type for rows in parts for row in rows if row.saga_type})

    def of_type(self, saga_type: str) -> SagaView:
        """Return the rows of this type, and those of unreadable messages without a type."""
        its_own = (saga_type, None)
        return SagaView(
            entries=[entry for entry in self.entries if entry.saga_type == saga_type],
            outbox=[row for row in self.outbox if row.saga_type in its_own],
            dead_letters=[row for row in self.dead_letters if row.saga_type in its_own],
            overdue=[row for row in self.overdue if row.saga_type in its_own],
        )

    @property
    def is_empty(self) -> bool:
        """Whether there are no rows."""
        return not (self.entries or self.outbox or self.dead_letters or self.overdue)


async def view(
    connection: AsyncConnection, saga_id: str, declared: Declared, *, saga_type: str | None = None
) -> SagaView:
    """Return this service's rows about a saga, with sensitive fields redacted by their events' declarations.

    Raises:
        AmbiguousSagaError: no type is named, and sagas of several types have this id.
    """
    of_id = Selection(saga_id=saga_id)
    found = SagaView(
        entries=[_entry(row, declared) for row in await saga_log_queries.timeline(connection, saga_id)],
        outbox=await outbox.listed(connection, saga_id=saga_id, limit=_MOST),
        dead_letters=await dead_letter_list(connection, of_id, declared, limit=_MOST),
        overdue=await overdue_steps.listed(connection, saga_id=saga_id, limit=_MOST),
    )
    if saga_type is not None:
        return found.of_type(saga_type)
    require_one_type(saga_id, [found])
    return found


def require_one_type(saga_id: str, views: Iterable[SagaView]) -> None:
    """Require that these services' rows about an id are of one saga type.

    Raises:
        AmbiguousSagaError: they are of several.
    """
    types = sorted({saga_type for each in views for saga_type in each.types})
    if len(types) > 1:
        raise AmbiguousSagaError(saga_id, types)


async def dead_letter_list(
    connection: AsyncConnection, which: Selection, declared: Declared, *, limit: int
) -> list[DeadLetterSummary]:
    """Return dead letters without their messages, the newest first."""
    rows = await dead_letter_queries.summaries(connection, which, limit=limit)
    shown: list[DeadLetterSummary] = []
    for some in (rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)):
        sensitive = [row.id for row in some if (kind := _kind(row, declared)) and has_sensitive_fields(kind)]
        bodies = await dead_letter_queries.bodies(connection, sensitive) if sensitive else {}
        shown += [replace(row, error=_redacted(row, row.error, declared, bodies.get(row.id))) for row in some]
    return shown


async def groups(connection: AsyncConnection, declared: Declared) -> list[DeadLetterGroup]:
    """Return groups of dead letters, the largest first, each with the error and the saga of its newest one."""
    counts = await dead_letter_queries.counts(connection)
    if not counts:
        return []
    newest = Selection(ids=tuple(each.newest for each in counts))
    by_id = {row.id: row for row in await dead_letter_list(connection, newest, declared, limit=len(counts))}
    return [
        DeadLetterGroup(
            reason=each.reason,
            step=each.step,
            count=each.count,
            first_at=each.first_at,
            last_at=each.last_at,
            error=_shortened(dead_letter.error),
            saga_type=dead_letter.saga_type,
            saga_id=dead_letter.saga_id,
        )
        for each in counts
        if (dead_letter := by_id.get(each.newest))  # it may have been deleted meanwhile
    ]


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_ERROR else f"{line[: _LONGEST_ERROR - 1]}…"


async def whole_dead_letter(
    connection: AsyncConnection, dead_letter_id: str, declared: Declared
) -> WholeDeadLetter | None:
    """Return one dead letter with its message, or None when it does not exist."""
    rows = await dead_letter_queries.listed(connection, Selection(ids=(dead_letter_id,)), limit=1)
    if not rows:
        return None
    (row,) = rows
    body = (await dead_letter_queries.bodies(connection, [dead_letter_id])).get(dead_letter_id, b"")
    kind = _kind(row, declared)
    return replace(
        row,
        error=_redacted(row, row.error, declared, body),
        traceback=row.traceback and _redacted(row, row.traceback, declared, body),
        headers={name: _header(name, value, kind, body) for name, value in row.headers.items()},
        body=redacted_body(kind, body),
    )


def _kind(row: DeadLetterSummary, declared: Declared) -> EventContract | None:
    return declared.get(row.event_type or row.routing_key.rpartition(".")[2])


def _redacted(row: DeadLetterSummary, text: str, declared: Declared, body: bytes | None) -> str:
    """Return an error with sensitive values redacted; a step's error about an undeclared event is not shown."""
    kind = _kind(row, declared)
    return UNKNOWN if kind is None and row.step else redact(kind, body, text)


def _header(name: str, value: Any, kind: EventContract | None, body: bytes) -> Any:
    """Return a header with sensitive values redacted: a foreign client may put one into a known header, too."""
    if not _is_known(name):
        return REDACTED
    return redact(kind, body, value) if isinstance(value, str) else value


def _is_known(header: str) -> bool:
    """Whether it is a header of the toolkit or the broker; others may hold anything."""
    return header in HEADERS or header.startswith(BROKERS_OWN)


def _entry(row: ArrivalEntry, declared: Declared) -> DetailedEntry:
    details = {
        "event_by": row.event_by,
        "emitted_body": redacted_object(declared.get(str(row.emitted_type)), row.emitted_body),
        "trace_id": trace_id_of(row.traceparent),
        "deadline": row.deadline,
    }
    return DetailedEntry.of({name: getattr(row, name) for name in saga_log_queries.SHOWN} | details)
