"""How far a saga has come: a summary, and the status of all its steps and compensations.

The services' logs and contracts are the only input. What an unreachable service did is unknown, never "not done".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from toolkit.declaration.choreography import Choreography
from toolkit.protocol.timeline import Timeline
from toolkit.tracking.begun_nodes import begun
from toolkit.tracking.coming_nodes import ComingNodes
from toolkit.tracking.inferred_contracts import completed
from toolkit.tracking.saga_records import SagaRecords
from toolkit.tracking.step_status import NodeProgress, SeenEvent, Status, View
from toolkit.tracking.summary import SummaryFacts, summary

__all__ = ["NodeProgress", "Progress", "SeenEvent", "Status", "View", "progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A saga's summary and all of its nodes: the forward path first, then the compensation path."""

    summary: str
    nodes: list[NodeProgress]

    @property
    def remaining(self) -> list[NodeProgress]:
        """The nodes that are not over, in the order in which they come unless a step refuses, and the unknown ones."""
        return [node for node in self.nodes if node.status.is_to_come or node.status is Status.UNKNOWN]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"summary": self.summary, "nodes": [asdict(node) for node in self.nodes]}


def progress(
    timeline: Timeline, choreography: Choreography, views: Mapping[str, View], *, now: datetime | None = None
) -> Progress:
    """Return how far the saga has come; `choreography` is made of all known contracts."""
    found = _nodes(timeline, completed(choreography, timeline), views) if timeline.entries else []
    nodes = [*found, *_unknown_services(timeline, choreography)]
    dead_letters = list(_stray_dead_letters(views, nodes))
    return Progress(summary(SummaryFacts(timeline, found, dead_letters, now or datetime.now(UTC))), nodes)


def _nodes(timeline: Timeline, choreography: Choreography, views: Mapping[str, View]) -> list[NodeProgress]:
    """Return the progress of each node of the timeline's saga type, which the choreography has."""
    records = SagaRecords(timeline, choreography, views)
    own = {node: begun(records, node) for node in choreography.nodes_of(records.saga)}
    coming = ComingNodes(records, own)
    return [found or coming.progress_of(node) for node, found in own.items()]


def _unknown_services(timeline: Timeline, choreography: Choreography) -> list[NodeProgress]:
    """Return a node for each service whose log and contract are unknown: it may have any part in the saga."""
    known = {contract.service for contract in choreography.contracts}
    unknown = [service for service in timeline.unreachable if service not in known]
    return [NodeProgress(service=each, name="?", kind="step", status=Status.UNKNOWN) for each in unknown]


def _stray_dead_letters(views: Mapping[str, View], nodes: list[NodeProgress]) -> Iterator[tuple[str, str]]:
    """Yield service and id of each dead letter that stops no node."""
    stopping = {node.dead_letter_id for node in nodes}
    for service, view in views.items():
        yield from ((service, row.id) for row in view.dead_letters if row.id not in stopping)
