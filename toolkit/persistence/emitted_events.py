"""Emitted events, as the saga log keeps them: complete enough to send one again as the same event."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import Event, Refusal
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.persistence.saga_log import of, saga_log
from toolkit.protocol.commands import Address, Reply, Verb, outcome_of
from toolkit.protocol.fence import StepState
from toolkit.protocol.keys import StreamKey


@dataclass(frozen=True, slots=True, kw_only=True)
class EmittedEvent:
    """An event that a step emitted."""

    service: str
    saga_id: str
    saga_type: str
    step: str
    to_state: str
    saga_state: str
    event_id: str | None
    event_type: str | None
    emitted_id: str
    emitted_type: str
    emitted_version: int | None
    emitted_body: str
    deadline: datetime | None
    traceparent: str | None
    started_at: datetime | None
    at: datetime

    @property
    def key(self) -> StreamKey:
        """The step that emitted it, and its saga."""
        return self.saga_type, self.saga_id, self.step

    def as_sent(self, event_type: type[Event], *, nudge: str = "", final_steps: Collection[str]) -> WireMessage:
        """Return the message as it was sent, with the same id and version, or as a nudge.

        It is marked as a reply, too: only a coordinator reads that. Nothing can undo the `final_steps`.
        """
        envelope = Envelope.of(
            event_type,
            event_id=self.emitted_id,
            version=self.emitted_version,
            saga=(self.saga_type, self.saga_id),
            occurred_at=self.at,
            causation_id=self.event_id,
            deadline=self.deadline,
            traceparent=self.traceparent,
            started_at=self.started_at,
            nudge=nudge,
            address=self._address(),
            reply=None if self._address() else self._reply(event_type, final_steps),
        )
        return envelope.wrap(self.emitted_body.encode(), event_type)

    def _address(self) -> Address | None:
        """Return the address of a coordinator's command: no other step emits an event while it runs or is undone."""
        verb = _COMMANDS.get(self.to_state)
        return Address(self.service, verb, self.step) if verb else None

    def _reply(self, event_type: type[Event], final_steps: Collection[str]) -> Reply:
        is_refusal, is_final = issubclass(event_type, Refusal), self.step in final_steps
        return Reply(self.step, outcome_of(StepState(self.to_state), is_refusal=is_refusal, is_final=is_final))


#: What a coordinator wants of a step by the command that its log's entry emitted.
_COMMANDS: dict[str, Verb] = {
    StepState.EXECUTING: Verb.ASK,
    StepState.VOIDING: Verb.UNDO,
    StepState.COMPENSATING: Verb.UNDO,
}


async def at(connection: AsyncConnection, positions: Sequence[tuple[str, str, str, int]]) -> list[EmittedEvent]:
    """Return the events emitted at these positions: a saga's type and id, a step, and the position."""
    if not positions:
        return []
    # By id alone, which both databases look up in an index; SQLite scans the table for a list of tuples.
    query = (
        _emitted_events()
        .add_columns(saga_log.c.position)
        .where(saga_log.c.saga_id.in_({each[1] for each in positions}))
    )
    rows = [dict(row._mapping) for row in await connection.execute(query)]
    wanted = set(positions)
    found = [(row.pop("position"), EmittedEvent(**row)) for row in rows]
    return [emitted_event for position, emitted_event in found if (*emitted_event.key, position) in wanted]


async def last_of(connection: AsyncConnection, saga_id: str, saga_type: str) -> list[EmittedEvent]:
    """Return the last event of each step of a saga."""
    query = _emitted_events().where(of(saga_id, saga_type)).order_by(saga_log.c.id)
    by_step = {row.step: EmittedEvent(**row._mapping) for row in await connection.execute(query)}
    return list(by_step.values())


def _emitted_events() -> Select[Any]:
    return select(*(saga_log.c[each.name] for each in fields(EmittedEvent))).where(saga_log.c.emitted_id.is_not(None))
