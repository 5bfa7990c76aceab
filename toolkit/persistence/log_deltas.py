"""The changes in a range of the saga log: sagas by state, ended sagas and emitted events.

A range costs what its own entries cost, however long the log before it is. So the sagas are counted once, range by
range, and from then on only new entries are read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, Subquery, cast, extract, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import SagaState
from toolkit.persistence.saga_log import is_same_saga, saga_log
from toolkit.persistence.schema import UtcDateTime

#: A saga's type and its state.
Kind = tuple[str, str]

_ENDED = (SagaState.COMPLETED.value, SagaState.FAILED.value)
#: Transactions rarely stay uncommitted for so long after a write.
_SETTLED_AFTER = timedelta(seconds=10)
#: How many ends are kept at most: those of five minutes at a steady 150 a second.
_MOST_ENDS = 50_000


@dataclass(slots=True)
class LogDeltas:
    """The changes in a range of the log.

    - `counts`: by how many sagas each kind grew; a saga that left a kind counts negative there.
    - `ends`: when each saga ended, and how long it took.
    - `emitted_events`: how often each event was emitted, by second since the epoch and name.
    """

    counts: Counter[Kind] = field(default_factory=Counter)
    ends: list[tuple[datetime, timedelta]] = field(default_factory=list)
    emitted_events: Counter[tuple[int, str]] = field(default_factory=Counter)

    def add(self, later: LogDeltas) -> None:
        """Add the changes of the following range."""
        self.counts.update(later.counts)
        self.ends += later.ends
        self.emitted_events.update(later.emitted_events)

    def forget(self, before: datetime) -> None:
        """Forget ends and emitted events before that moment."""
        self.ends = [each for each in self.ends if each[0] > before][-_MOST_ENDS:]
        second = before.timestamp()
        self.emitted_events = Counter({key: count for key, count in self.emitted_events.items() if key[0] > second})


async def deltas(connection: AsyncConnection, *, after: int, until: int, since: datetime) -> LogDeltas:
    """Return the changes of the rows after `after`, up to `until`; ends and emitted events only since `since`."""
    return LogDeltas(
        counts=await _counts(connection, after, until),
        ends=await _ends(connection, after, until, since),
        emitted_events=await _emitted_events(connection, after, until, since),
    )


async def last_row(connection: AsyncConnection) -> int:
    """Return the number of the last row; 0 without rows."""
    return int(await connection.scalar(select(func.max(saga_log.c.id))) or 0)


async def settled_row(connection: AsyncConnection, *, now: datetime) -> int:
    """Return the number of a row before which no row can appear any more.

    SQLite has one writer, so the last row qualifies. PostgreSQL assigns numbers before the commit, so the last row that
    is old enough does; a transaction that takes longer is missed until the sagas are counted again.
    """
    if connection.dialect.name == "sqlite":
        return await last_row(connection)
    old = select(saga_log.c.id).where(saga_log.c.at <= literal(now - _SETTLED_AFTER, UtcDateTime()))
    return int(await connection.scalar(old.order_by(saga_log.c.at.desc()).limit(1)) or 0)


async def _counts(connection: AsyncConnection, after: int, until: int) -> Counter[Kind]:
    """Compare each saga's last entry in the range with its last entry before."""
    latest = _latest(after, until)
    now, before = saga_log.alias(), saga_log.alias()
    previous = (
        select(before.c.saga_state)
        .where(before.c.saga_id == latest.c.saga_id, before.c.saga_type == latest.c.saga_type, before.c.id <= after)
        .order_by(before.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    moved = (
        select(now.c.saga_type, now.c.saga_state, previous.label("previous"))
        .join(latest, now.c.id == latest.c.id)
        .subquery()
    )
    query = select(moved.c.saga_type, moved.c.saga_state, moved.c.previous, func.count())
    counts: Counter[Kind] = Counter()
    for saga_type, state, was, count in await connection.execute(query.group_by(*moved.c)):
        counts[saga_type, state] += count
        if was is not None:
            counts[saga_type, was] -= count
    return counts


def _latest(after: int, until: int) -> Subquery:
    saga = saga_log.c.saga_type, saga_log.c.saga_id
    query = select(*saga, func.max(saga_log.c.id).label("id"))
    return query.where(saga_log.c.id > after, saga_log.c.id <= until).group_by(*saga).subquery()


async def _ends(
    connection: AsyncConnection, after: int, until: int, since: datetime
) -> list[tuple[datetime, timedelta]]:
    before, first = saga_log.alias(), saga_log.alias()
    ended_before = (
        select(before.c.id).where(is_same_saga(before), before.c.id <= after, before.c.saga_state.in_(_ENDED)).exists()
    )
    ended = (
        select(saga_log.c.saga_type, saga_log.c.saga_id, func.min(saga_log.c.at).label("at"))
        .where(
            saga_log.c.id > after,
            saga_log.c.id <= until,
            saga_log.c.at > since,
            saga_log.c.saga_state.in_(_ENDED),
            ~ended_before,
        )
        .group_by(saga_log.c.saga_type, saga_log.c.saga_id)
        .subquery()
    )
    began_at = (
        select(first.c.at)
        .where(first.c.saga_id == ended.c.saga_id, first.c.saga_type == ended.c.saga_type)
        .order_by(first.c.id)
        .limit(1)
        .scalar_subquery()
    )
    rows = await connection.execute(select(ended.c.at, began_at.label("began_at")))
    return [(row.at, row.at - row.began_at) for row in rows]


async def _emitted_events(
    connection: AsyncConnection, after: int, until: int, since: datetime
) -> Counter[tuple[int, str]]:
    second = cast(extract("epoch", saga_log.c.at), BigInteger).label("second")
    query = select(second, saga_log.c.emitted_type, func.count()).where(
        saga_log.c.id > after, saga_log.c.id <= until, saga_log.c.at > since, saga_log.c.emitted_type.is_not(None)
    )
    rows = await connection.execute(query.group_by(second, saga_log.c.emitted_type))
    return Counter({(int(at), str(event)): int(count) for at, event, count in rows})
