"""Unsent messages and overdue steps as their readers get them, from the table to the screen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from toolkit.protocol.fence import SagaState, StepState
from toolkit.protocol.keys import TIMER, SagaKey, StreamKey
from toolkit.protocol.rows import Row, member_or_text


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsentMessage(Row):
    """A row of the outbox, without its message; `tries` counts how often the broker returned it.

    `destination` is the service's own queue for a message to itself; `attempt` is None where the row can't be read.
    """

    id: str
    event_id: str
    event_type: str
    saga_type: str | None
    saga_id: str | None
    occurred_at: datetime
    due_at: datetime
    tries: int
    destination: str | None
    attempt: int | None

    @property
    def is_timer(self) -> bool:
        """Whether it announces a deadline to its own service, or reminds it of an open question; it waits by design."""
        return self.id.startswith(TIMER)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverdueStep(Row):
    """A step that waits for its saga's end.

    `nudges` counts how often its event was sent again; `aborted`: an abort was sent.
    """

    conversions: ClassVar = {"state": member_or_text(StepState), "saga_state": member_or_text(SagaState)}

    saga_id: str
    step: str
    saga_type: str
    position: int
    state: StepState
    saga_state: SagaState
    since: datetime
    nudges: int
    aborted: bool

    @property
    def saga(self) -> SagaKey:
        """The saga that the step belongs to."""
        return self.saga_type, self.saga_id

    @property
    def key(self) -> StreamKey:
        """The step's stream in the saga log."""
        return self.saga_type, self.saga_id, self.step
