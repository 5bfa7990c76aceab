"""The rows of the list of sagas: each saga once, merged from the rows of all services."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from toolkit.declaration.events import SagaState
from toolkit.operations.search import FoundSaga, Search
from toolkit.protocol.keys import SagaKey

#: The order in which a saga's state in one service outweighs others: an end in one service is the saga's end.
_OUTWEIGH = (SagaState.STARTED, SagaState.PENDING, SagaState.COMPENSATING, SagaState.FAILED, SagaState.COMPLETED)


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaRow:
    """A saga in the services that have listed it; `at` is the time of its latest entry, `moved_at` that of `step`."""

    saga_type: str
    saga_id: str
    state: str
    step: str
    started_at: datetime
    moved_at: datetime
    at: datetime
    attention: frozenset[str]
    services: frozenset[str]

    @classmethod
    def of(cls, service: str, saga: FoundSaga) -> SagaRow:
        """Return the row of a saga that a service has listed."""
        return cls(
            saga_type=saga.saga_type,
            saga_id=saga.saga_id,
            state=str(saga.state),
            step=saga.step,
            started_at=saga.started_at,
            moved_at=saga.moved_at,
            at=saga.at,
            attention=frozenset(saga.attention),
            services=frozenset({service}),
        )

    @property
    def rank(self) -> tuple[datetime, str, str]:
        """The row's place in the list, the highest first."""
        return self.at, self.saga_id, self.saga_type

    def matches(self, which: Search) -> bool:
        """Whether the merged saga still matches the search."""
        return (which.state is None or self.state == which.state) and which.step in (None, self.step)

    def joined(self, other: SagaRow) -> SagaRow:
        """Return the saga of both rows."""
        moved = max(self, other, key=lambda row: row.moved_at)
        return replace(
            max(self, other, key=lambda row: (_weight(row.state), row.at)),
            step=moved.step,
            moved_at=moved.moved_at,
            started_at=min(self.started_at, other.started_at),
            at=max(self.at, other.at),
            attention=self.attention | other.attention,
            services=self.services | other.services,
        )


def merged(rows: Iterable[SagaRow]) -> list[SagaRow]:
    """Return each saga once, the latest entry first."""
    sagas: dict[SagaKey, SagaRow] = {}
    for row in rows:
        saga = row.saga_type, row.saga_id
        sagas[saga] = sagas[saga].joined(row) if saga in sagas else row
    return sorted(sagas.values(), key=lambda row: row.rank, reverse=True)


def _weight(state: str) -> int:
    """Return a state's place in the order; a text that is no state has the lowest."""
    return _OUTWEIGH.index(SagaState(state)) if state in _OUTWEIGH else -1
