"""One saga as one service sees it: its log, what of it waits in the outbox, its dead letters, and what is overdue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit import dead_letters, outbox, overdue, saga_log
from toolkit.contract import EventContract
from toolkit.dead_letters import Selection
from toolkit.ids import trace_id_of
from toolkit.masking import masked_object

#: The events that a service hears and says, by name.
Declared = Mapping[str, EventContract]

#: What an entry of one saga's whole story has, in this order.
TOLD = (*saga_log.SHOWN, "emitted_body", "trace_id", "deadline")

#: How many rows of the outbox, and how many letters, are shown of one saga.
_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaView:
    """What a service knows of a saga; all of it empty where it knows no such saga."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    outbox: list[dict[str, Any]] = field(default_factory=list)
    dead_letters: list[dict[str, Any]] = field(default_factory=list)
    overdue: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is known."""
        return not (self.entries or self.outbox or self.dead_letters or self.overdue)


async def view(connection: AsyncConnection, saga_id: str, declared: Declared) -> SagaView:
    """Return what is known of a saga here, with sensitive fields masked by the declarations of their events."""
    letters = await dead_letters.listed(connection, Selection(saga_id=saga_id), limit=_MOST, whole=False)
    return SagaView(
        entries=[_entry(row, declared) for row in await saga_log.story(connection, saga_id)],
        outbox=await outbox.listed(connection, saga_id=saga_id, limit=_MOST),
        dead_letters=letters,
        overdue=[asdict(step) for step in await overdue.listed(connection, saga_id=saga_id, limit=_MOST)],
    )


def _entry(row: dict[str, Any], declared: Declared) -> dict[str, Any]:
    told = {name: row[name] for name in saga_log.SHOWN}
    return told | {
        "emitted_body": masked_object(declared.get(str(row["emitted_type"])), row["emitted_body"]),
        "trace_id": trace_id_of(row["traceparent"]),
        "deadline": row["deadline"],
    }
