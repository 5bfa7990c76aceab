"""What an operator's batch did, row by row, from the transaction to the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from toolkit.protocol.rows import Row

#: The outcome of a row that was left as it is; its `why` is the reason.
REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterOutcome(Row):
    """What became of one dead letter; `why` where it was refused."""

    id: str
    saga_type: str | None
    saga_id: str | None
    step: str | None
    reason: str
    outcome: str
    why: str | None

    @property
    def is_refused(self) -> bool:
        """Whether the dead letter was left as it is."""
        return self.outcome == REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaOutcome(Row):
    """What was sent for one step of a saga; `why` where it was refused."""

    service: str
    saga_type: str
    saga_id: str
    step: str
    event_type: str | None
    event_id: str | None
    outcome: str
    why: str | None

    @property
    def is_refused(self) -> bool:
        """Whether nothing was sent."""
        return self.outcome == REFUSED


R = TypeVar("R", DeadLetterOutcome, SagaOutcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult(Generic[R]):
    """The outcomes of one transaction; the next batch begins behind `after`, None when none is left."""

    rows: Sequence[R]
    after: str | None = None
