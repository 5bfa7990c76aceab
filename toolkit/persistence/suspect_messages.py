"""Marks on messages that run in isolation: a mark that remains shows that a process ended during the message.

A mark is committed before its message runs and deleted when the message is settled. The database keeps it, so the
count survives the crash, and counts one message alone: a broker counts every message that a killed process held.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Column, Integer, String, Table, bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.messaging.envelope import WireMessage
from toolkit.persistence.schema import UtcDateTime, insert_into, metadata

suspects = Table(
    "saga_suspects",
    metadata,
    Column("id", String, primary_key=True),
    Column("marks", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)


def fingerprint(message: WireMessage) -> str:
    """Return what all deliveries of a message have in common, by any route."""
    facts = [message.message_id, message.correlation_id]
    return hashlib.sha256(json.dumps(facts).encode() + message.body).hexdigest()


async def marks(connection: AsyncConnection, some: Collection[str]) -> dict[str, int]:
    """Return how many marks each of these messages has, by message, without those that have none."""
    if not some:
        return {}
    rows = await connection.execute(select(suspects.c.id, suspects.c.marks).where(suspects.c.id.in_(some)))
    return {row.id: row.marks for row in rows}


async def mark(connection: AsyncConnection, some: Collection[str], *, now: datetime) -> dict[str, int]:
    """Add a mark to each of these messages, and return how many each has."""
    if not some:
        return {}
    # In one order, so that two replicas which mark the same messages do not lock each other out.
    new = insert_into(suspects, connection).values([{"id": each, "marks": 1, "at": now} for each in sorted(some)])
    statement = new.on_conflict_do_update(
        index_elements=["id"], set_={"marks": suspects.c.marks + 1, "at": now}
    ).returning(suspects.c.id, suspects.c.marks)
    return {row.id: row.marks for row in await connection.execute(statement)}


async def unmark(connection: AsyncConnection, some: Collection[str]) -> None:
    """Delete all marks of these messages."""
    if some:
        one = delete(suspects).where(suspects.c.id == bindparam("suspect"))
        await connection.execute(one, [{"suspect": each} for each in sorted(some)])


async def take_back(connection: AsyncConnection, some: Collection[str]) -> None:
    """Remove one mark from each of these messages: their process stops in order."""
    await connection.execute(
        update(suspects).where(suspects.c.id.in_(some), suspects.c.marks > 0).values(marks=suspects.c.marks - 1)
    )


async def marked_messages(connection: AsyncConnection, *, least: int) -> set[str]:
    """Return the messages with at least so many marks."""
    return set((await connection.execute(select(suspects.c.id).where(suspects.c.marks >= least))).scalars())


async def prune(connection: AsyncConnection, *, before: datetime) -> None:
    """Delete marks last set before that moment: their messages were settled long ago."""
    await connection.execute(delete(suspects).where(suspects.c.at < before))
