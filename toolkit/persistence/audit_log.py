"""The audit log: which operator changed what in this service, when and why; one row for each thing changed.

A row is committed in the transaction of the change itself, so neither exists without the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, Index, String, Table, Text, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.ids import new_id
from toolkit.persistence.schema import UtcDateTime, metadata
from toolkit.protocol.rows import Row

audit = Table(
    "saga_audit",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", String, nullable=False),
    Column("verb", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("saga_type", String),
    Column("saga_id", String),
    Column("subject", Text, nullable=False),
    Index("saga_audit_by_time", "at"),
)


@dataclass(frozen=True, slots=True)
class Operator:
    """The person who acts, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change: the verb, the thing that was changed, and the saga that it belongs to, if any."""

    verb: str
    subject: str
    saga_type: str | None = None
    saga_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry(Row):
    """An operator's change: who, when, why, and what."""

    id: str
    at: datetime
    actor: str
    verb: str
    reason: str
    saga_type: str | None
    saga_id: str | None
    subject: str


async def add(connection: AsyncConnection, changes: Sequence[Change], by: Operator, *, now: datetime) -> None:
    """Insert the audit entries of an operator's changes in one statement."""
    if changes:
        await connection.execute(insert(audit), [_entry(each, by, now).as_row() for each in changes])


async def listed(connection: AsyncConnection, *, limit: int = 100, before: str | None = None) -> list[AuditEntry]:
    """Return audit entries, newest first; with `before`, only entries older than the one with that id."""
    query = select(audit) if before is None else select(audit).where(audit.c.id < before)
    rows = await connection.execute(query.order_by(audit.c.id.desc()).limit(limit))
    return [AuditEntry.of(row._mapping) for row in rows]


async def prune(connection: AsyncConnection, *, before: datetime, most: int) -> int:
    """Delete up to `most` rows of that time or earlier, and return how many."""
    old = select(audit.c.id).where(audit.c.at <= before).order_by(audit.c.at).limit(most)
    return (await connection.execute(delete(audit).where(audit.c.id.in_(old)))).rowcount


def _entry(change: Change, by: Operator, now: datetime) -> AuditEntry:
    return AuditEntry(
        id=new_id(),
        at=now,
        actor=by.name,
        verb=change.verb,
        reason=by.reason,
        saga_type=change.saga_type,
        saga_id=change.saga_id,
        subject=change.subject,
    )
