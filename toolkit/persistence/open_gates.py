"""The joins that wait: the last entry of the step's stream is an arrival, and its saga has not ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, not_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.persistence.saga_log import ARRIVAL_FIELDS, ArrivalEntry, is_same_saga, is_same_step, saga_log
from toolkit.protocol.fence import SagaState
from toolkit.protocol.keys import StreamKey

#: As text, since no planner proves a partial index's condition from a parameter.
_GATHERS = text("saga_log.to_state = 'gathering'")
_ENDED = [state.value for state in SagaState if state.is_ended]


@dataclass(frozen=True, slots=True)
class OpenGate:
    """A join that waits, the log's row of its last entry, and the entries of the events that have arrived, in order."""

    row: int
    key: StreamKey
    arrivals: Sequence[ArrivalEntry]


async def open_gates(
    connection: AsyncConnection, steps: Collection[tuple[str, str]], *, after: int = 0, limit: int
) -> list[OpenGate]:
    """Return those of these steps, given by saga type and name, that wait, and whose last entry is after this row.

    In the order of these entries: the longest waiting first.
    """
    if not steps:
        return []
    later, end = saga_log.alias("later"), saga_log.alias("ended")
    has_moved = exists().where(is_same_step(later), later.c.position > saga_log.c.position)
    has_ended = exists().where(is_same_saga(end), end.c.saga_state.in_(_ENDED))
    # As one text, lest a planner go by the type: the few arrivals have an index of their own.
    is_one = saga_log.c.saga_type.concat("/").concat(saga_log.c.step).in_([f"{kind}/{step}" for kind, step in steps])
    query = select(saga_log.c.id, saga_log.c.saga_type, saga_log.c.saga_id, saga_log.c.step)
    query = query.where(_GATHERS, is_one, not_(has_moved), not_(has_ended), saga_log.c.id > after)
    found = await connection.execute(query.order_by(saga_log.c.id).limit(limit))
    keys: dict[StreamKey, int] = {(row.saga_type, row.saga_id, row.step): row.id for row in found}
    arrivals = await _arrivals(connection, keys)
    return [OpenGate(row, key, arrivals[key]) for key, row in keys.items()]


async def _arrivals(connection: AsyncConnection, keys: Collection[StreamKey]) -> dict[StreamKey, list[ArrivalEntry]]:
    arrivals: dict[StreamKey, list[ArrivalEntry]] = {key: [] for key in keys}
    ids = {saga_id for _, saga_id, _ in keys}
    query = select(*(saga_log.c[name] for name in ARRIVAL_FIELDS)).where(_GATHERS, saga_log.c.saga_id.in_(ids))
    rows: Any = await connection.execute(query.order_by(saga_log.c.id)) if keys else ()
    for row in rows:
        if (key := (row.saga_type, row.saga_id, row.step)) in arrivals:
            arrivals[key].append(ArrivalEntry(**row._mapping))
    return arrivals
