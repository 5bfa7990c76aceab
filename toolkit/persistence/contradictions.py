"""Steps whose state contradicts their saga's end: failed in a completed saga, or still completed in a failed one.

No rule of the protocol repairs them, so they are listed for an operator until their sagas are pruned.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.persistence.saga_log import is_contradiction, saga_log
from toolkit.protocol.rows import Row

#: The columns of the log that a contradiction consists of.
COLUMNS = (
    saga_log.c.saga_id,
    saga_log.c.saga_type,
    saga_log.c.step,
    saga_log.c.error,
    saga_log.c.at.label("since"),
)
_CONTRADICTIONS = select(*COLUMNS).where(is_contradiction).order_by(saga_log.c.id.desc())


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction(Row):
    """A step whose state contradicts its saga's end, how, and since when that is known."""

    saga_id: str
    saga_type: str
    step: str
    error: str
    since: datetime


async def listed(connection: AsyncConnection, *, limit: int) -> list[Contradiction]:
    """Return the newest contradictions."""
    return [Contradiction.of(row._mapping) for row in await connection.execute(_CONTRADICTIONS.limit(limit))]
