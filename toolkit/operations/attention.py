"""The sagas that need an operator: overdue ones, and those with dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, exists, func, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.persistence.dead_letters import dead_letters
from toolkit.persistence.overdue_steps import overdue
from toolkit.persistence.saga_log import saga_log
from toolkit.protocol.keys import SagaKey

#: Up to so many sagas that need attention are looked up one by one; of more, the end of the log has enough.
_FEW = 500


class Attention(StrEnum):
    """Why a saga may need an operator."""

    OVERDUE = "overdue"
    DEAD_LETTER = "dead_letter"


def sagas_in_need(attention: Attention) -> Select[Any]:
    """Return the query of sagas that need an operator; an unreadable dead letter may have no type."""
    if attention is Attention.OVERDUE:
        return select(overdue.c.saga_id, overdue.c.saga_type)
    return select(dead_letters.c.saga_id, dead_letters.c.saga_type).where(dead_letters.c.saga_id.is_not(None))


def needs(attention: Attention) -> ColumnElement[bool]:
    """Return the condition that an entry's saga needs an operator."""
    needy = overdue.c if attention is Attention.OVERDUE else dead_letters.c
    is_its_type = or_(needy.saga_type == saga_log.c.saga_type, needy.saga_type.is_(None))
    return exists().where(needy.saga_id == saga_log.c.saga_id, is_its_type)


def _reasons_of(saga_ids: Sequence[str]) -> CompoundSelect[Any]:
    """Return the query of these sagas' reasons for attention, each once."""
    return union_all(
        *(
            query.add_columns(literal(attention.value)).where(query.selected_columns[0].in_(saga_ids)).distinct()
            for attention in Attention
            for query in [sagas_in_need(attention)]
        )
    )


async def are_few(connection: AsyncConnection, attention: Attention) -> bool:
    """Return whether few sagas need an operator for this reason."""
    most = sagas_in_need(attention).limit(_FEW + 1).subquery()
    return int(await connection.scalar(select(func.count()).select_from(most)) or 0) <= _FEW


async def reasons_of(connection: AsyncConnection, sagas: Sequence[SagaKey]) -> list[tuple[Attention, ...]]:
    """Return each saga's reasons for attention."""
    rows = await connection.execute(_reasons_of([saga_id for _, saga_id in sagas])) if sagas else ()
    found: dict[str, list[tuple[str | None, Attention]]] = {}
    for saga_id, saga_type, attention in rows:
        found.setdefault(saga_id, []).append((saga_type, Attention(attention)))
    return [
        tuple(dict.fromkeys(each for of_type, each in found.get(saga_id, ()) if of_type in (saga_type, None)))
        for saga_type, saga_id in sagas
    ]
