"""One saga's timeline: the log entries of all services in one causal order.

An entry follows the one that emitted its event, and entries of one service keep the order in which they were written.
Clocks play no part. An unreachable service leaves a gap, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.ids import derived_id
from toolkit.protocol.control_events import SAGA_ENDED
from toolkit.protocol.fence import SagaState, StepState
from toolkit.protocol.log_entry import LogEntry

#: The weights of the saga's states: an end that one service knows is the end.
_WEIGHT = {
    state: weight
    for weight, state in enumerate(
        (SagaState.STARTED, SagaState.PENDING, SagaState.COMPENSATING, SagaState.FAILED, SagaState.COMPLETED)
    )
}


#: The states that a step has while a coordinator waits for its reply.
_COMMANDED = (StepState.EXECUTING, StepState.VOIDING, StepState.COMPENSATING)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The known entries of one saga; `unreachable` has the services that could not be read, and why."""

    saga_id: str
    entries: Sequence[LogEntry]
    unreachable: Mapping[str, str] = field(default_factory=dict)

    @property
    def saga_type(self) -> str | None:
        """The saga's type, or None where no service knows the saga."""
        return next((entry.saga_type for entry in self.entries), None)

    @property
    def state(self) -> SagaState | None:
        """The saga's state by all entries together, or None where no service knows the saga."""
        return max((entry.saga_state for entry in self.entries), key=_WEIGHT.__getitem__, default=None)

    @property
    def effects(self) -> list[LogEntry]:
        """The entries of the services that run the steps, without those in which a coordinator repeats them."""
        asked = asked_streams(self.entries)
        return [entry for entry in self.entries if (entry.service, entry.step) not in asked]

    @property
    def last_move(self) -> LogEntry | None:
        """The last entry that is more than a note of the saga's end."""
        return next((entry for entry in reversed(self.entries) if not _is_closing(entry)), None)

    def as_dict(self) -> dict[str, Any]:
        """Return the timeline as plain data."""
        return {
            "saga_id": self.saga_id,
            "saga_type": self.saga_type,
            "state": self.state,
            "entries": list(self.entries),
            "unreachable": dict(self.unreachable),
        }


def asked_streams(entries: Iterable[LogEntry]) -> set[tuple[str, str]]:
    """Return a coordinator's streams of the steps that it asks, as service and step.

    Only a coordinator emits an event, its command, while a step runs or is undone.
    """
    return {(entry.service, entry.step) for entry in entries if entry.emitted_id and entry.to_state in _COMMANDED}


def tell(
    saga_id: str, logs: Mapping[str, Sequence[LogEntry]], *, unreachable: Mapping[str, str] | None = None
) -> Timeline:
    """Merge these logs, given by service, each in its own order."""
    return Timeline(saga_id, merge(logs.values()), unreachable or {})


def merge(logs: Iterable[Sequence[LogEntry]]) -> list[LogEntry]:
    """Return the entries of all logs in one causal order, the same whatever order the logs come in."""
    queues = sorted((list(log) for log in logs if log), key=lambda log: log[0].service)
    merged = _Merge(emitted for log in queues for emitted in _emitted_events(log))
    while queues:
        queue = min(queues, key=lambda waiting: merged.rank(waiting[0]))
        merged.append(queue.pop(0))
        queues = [waiting for waiting in queues if waiting]
    return merged.entries


class _Merge:
    """The merged part of the timeline, and the ranks of the entries that may come next."""

    def __init__(self, emitted_events: Iterable[str]) -> None:
        self.entries: list[LogEntry] = []
        self._awaited = set(emitted_events)
        self._emitted_at: dict[str, int] = {}

    def append(self, entry: LogEntry) -> None:
        """Append an entry."""
        for event in _emitted_events([entry]):
            # Only the first counts: a nudge emits the same event again, after it was consumed.
            self._emitted_at.setdefault(event, len(self.entries))
        self.entries.append(entry)

    def rank(self, entry: LogEntry) -> tuple[int, ...]:
        """Return the entry's rank, the least first; equals go by the service's name.

        First the entries whose event was appended, the earliest event first; then those whose event no entry emitted,
        the saga's start before all; last those whose event is still to be appended, which happens only where the logs
        contradict each other.
        """
        event = _taken(entry)
        if event in self._emitted_at:
            return (0, self._emitted_at[event], *_phase(entry))
        if event in self._awaited:
            return (3, 0, *_phase(entry))
        return (1 if is_start(entry) else 2, 0, *_phase(entry))


def _phase(entry: LogEntry) -> tuple[int, int]:
    """Return the entry's phase in a saga's course; a refusal starts the compensation path, so it is first on it."""
    return _WEIGHT[entry.saga_state], int(entry.to_state != StepState.FAILED)


def _emitted_events(log: Sequence[LogEntry]) -> Iterator[str]:
    """Yield the ids of the events that these entries emitted; the entry that ends the saga also emits its end."""
    for entry in log:
        if entry.emitted_id:
            yield entry.emitted_id
            if entry.saga_state.is_ended:
                yield SAGA_ENDED


def _taken(entry: LogEntry) -> str | None:
    """Return the id of the event that made this entry; all messages about one saga's end count as one."""
    return SAGA_ENDED if _is_closing(entry) else entry.event_id


def _is_closing(entry: LogEntry) -> bool:
    return str(entry.event_type) == SAGA_ENDED


def is_start(entry: LogEntry) -> bool:
    """Whether the entry took the starting event, by its derived id or its state."""
    derived = derived_id(entry.saga_type, entry.saga_id, str(entry.event_type))
    return entry.saga_state is SagaState.STARTED or str(entry.event_id) == derived
