"""How far a saga has come: in a sentence for people, and in all its steps and compensations, with what is to come.

It is read from the services' logs and contracts alone. Whoever can't be asked is unknown, never "not done".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from toolkit.declaration.choreography import Choreography
from toolkit.protocol.timeline import Timeline
from toolkit.tracking.inferred_contracts import completed
from toolkit.tracking.step_status import NodeProgress, SeenEvent, Status, View, nodes_of
from toolkit.tracking.summary import Facts, summary

__all__ = ["NodeProgress", "Progress", "SeenEvent", "Status", "View", "progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A saga in a sentence, and all of its nodes: the way forward first, then the way back."""

    summary: str
    nodes: list[NodeProgress]

    @property
    def remaining(self) -> list[NodeProgress]:
        """What is not over, in the order in which it comes if nobody refuses; what is unknown included."""
        return [node for node in self.nodes if node.status.is_to_come or node.status is Status.UNKNOWN]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"summary": self.summary, "nodes": [asdict(node) for node in self.nodes]}


def progress(
    timeline: Timeline, choreography: Choreography, views: Mapping[str, View], *, now: datetime | None = None
) -> Progress:
    """Return how far the saga has come; `choreography` is that of all services whose contracts are known."""
    found = nodes_of(timeline, completed(choreography, timeline), views) if timeline.entries else []
    nodes = [*found, *_unknown_services(timeline, choreography)]
    dead_letters = list(_stray_dead_letters(views, nodes))
    return Progress(summary(Facts(timeline, found, dead_letters, now or datetime.now(UTC))), nodes)


def _unknown_services(timeline: Timeline, choreography: Choreography) -> list[NodeProgress]:
    """Return a node for each service of which neither log nor contract is known: it may have any part in the saga."""
    known = {contract.service for contract in choreography.contracts}
    strange = [service for service in timeline.unreachable if service not in known]
    return [NodeProgress(service=each, name="?", kind="step", status=Status.UNKNOWN) for each in strange]


def _stray_dead_letters(views: Mapping[str, View], nodes: list[NodeProgress]) -> Iterator[tuple[str, str]]:
    """Yield service and id of each dead letter that stops no node."""
    stopping = {node.dead_letter_id for node in nodes}
    for service, view in views.items():
        yield from ((service, str(row["id"])) for row in view.dead_letters if row["id"] not in stopping)
