"""Steps that do not stand as their sagas' ends have it: confirmed here and failed there, or done in a saga that failed.

No rule of the protocol mends that, so they are listed for a person until their sagas are pruned.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.persistence.saga_log import is_contradiction, saga_log

_CONTRADICTIONS = (
    select(
        saga_log.c.saga_id,
        saga_log.c.saga_type,
        saga_log.c.step,
        saga_log.c.error,
        saga_log.c.at.label("since"),
    )
    .where(is_contradiction)
    .order_by(saga_log.c.id.desc())
)


async def listed(connection: AsyncConnection, *, limit: int) -> list[dict[str, Any]]:
    """Return the newest contradictions: `saga_id`, `saga_type`, `step`, `error`, and `since` when they are noted."""
    return [dict(row._mapping) for row in await connection.execute(_CONTRADICTIONS.limit(limit))]
