"""One saga as its page shows it, from all services: timeline, graph, sequence, and what blocks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from toolkit.console.diagrams.saga_graph import Graph, saga_graph
from toolkit.console.diagrams.sequence import Sequence, sequence_of
from toolkit.console.saga_timeline import NodeIndex, Row, entry_rows, is_closing, remaining_rows
from toolkit.declaration.choreography import Choreography
from toolkit.operations.views import SagaView
from toolkit.protocol.dead_letter_rows import DeadLetterSummary
from toolkit.protocol.log_entry import LogEntry, trace_of
from toolkit.protocol.pending_rows import OverdueStep, UnsentMessage
from toolkit.protocol.timeline import Timeline
from toolkit.tracking.progress import Progress


@dataclass(frozen=True)
class SagaDetails:
    """All data of one saga."""

    timeline: Timeline
    progress: Progress
    views: Mapping[str, SagaView]
    choreography: Choreography
    unknown_services: list[str]
    services: list[str]

    @property
    def is_known(self) -> bool:
        """Whether any service has data of the saga."""
        return bool(self.timeline.entries) or any(not view.is_empty for view in self.views.values())

    @cached_property
    def rows(self) -> list[Row]:
        """The log entries in causal order, without those of the saga's end."""
        return entry_rows(self.timeline.entries, self.progress, NodeIndex(self.choreography))

    @property
    def closing(self) -> dict[str, list[LogEntry]]:
        """The entries that record the saga's end, by service."""
        found: dict[str, list[LogEntry]] = {}
        for entry in self.timeline.entries:
            if is_closing(entry):
                found.setdefault(entry.service, []).append(entry)
        return found

    @cached_property
    def to_come(self) -> list[Row]:
        """The nodes without entries."""
        return remaining_rows(self.rows, self.progress)

    @property
    def dead_letters(self) -> list[DeadLetterSummary]:
        """The saga's dead letters."""
        return [row for view in self.views.values() for row in view.dead_letters]

    @property
    def outbox(self) -> list[tuple[str, UnsentMessage]]:
        """The saga's unsent messages, each with its service."""
        return [(name, row) for name, view in self.views.items() for row in view.outbox]

    @property
    def overdue(self) -> list[tuple[str, OverdueStep]]:
        """The saga's overdue steps, each with its service."""
        return [(name, row) for name, view in self.views.items() for row in view.overdue]

    @cached_property
    def graph(self) -> Graph | None:
        """The saga's graph, or None where no contract has its type."""
        return saga_graph(self.timeline, self.progress.nodes, self.choreography, self.unknown_services)

    @cached_property
    def sequence(self) -> Sequence:
        """The messages between services, in causal order."""
        return sequence_of(self.timeline.entries, self.choreography, self.services)

    def trace_ids(self) -> list[str]:
        """Return the ids of the saga's traces: one, unless it was started under several."""
        return list(dict.fromkeys(trace for entry in self.timeline.entries if (trace := trace_of(entry))))

    def as_dict(self) -> dict[str, Any]:
        """Return the saga as plain data."""
        return (
            self.timeline.as_dict()
            | self.progress.as_dict()
            | {"services": {name: asdict(view) for name, view in self.views.items()}}
        )
