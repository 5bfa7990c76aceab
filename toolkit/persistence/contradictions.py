"""Steps whose state contradicts their saga's end: failed in a completed saga, or still completed in a failed one.

No rule of the protocol repairs them, so they are listed for an operator until their sagas are pruned.
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
    """Return the newest contradictions: `saga_id`, `saga_type`, `step`, `error`, and `since`, when they were noted."""
    return [dict(row._mapping) for row in await connection.execute(_CONTRADICTIONS.limit(limit))]
