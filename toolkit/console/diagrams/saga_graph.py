"""One saga's graph: the choreography with the status of each node, and the arrows that the saga has taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.console.diagrams.graph import UNKNOWN_SERVICES, Looks, drawn, event_key, key_of
from toolkit.console.diagrams.shapes import Arrow, Layout
from toolkit.console.saga_timeline import NodeIndex
from toolkit.console.templating import clock, look
from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.contract import SagaContract
from toolkit.protocol.fence import Note
from toolkit.protocol.timeline import Timeline
from toolkit.tracking.progress import NodeProgress, Status


@dataclass(frozen=True, slots=True)
class Graph:
    """A saga's graph: its layout, CSS classes, and links by key."""

    layout: Layout
    looks: Looks
    links: Mapping[str, str]


def saga_graph(
    timeline: Timeline, nodes: Sequence[NodeProgress], choreography: Choreography, unknown_services: Sequence[str]
) -> Graph | None:
    """Return the saga's graph, or None where no contract has its type."""
    saga = choreography.saga(str(timeline.saga_type))
    if saga is None:
        return None
    by_key = {key_of(node.service, node.name): node for node in nodes}

    def status(node: Node) -> str:
        known = by_key.get(key_of(node.service, node.name))
        return _status_text(known) if known else ""

    layout = drawn(choreography, saga, status=status, unknown_services=unknown_services)
    route = _Route(timeline, choreography, set(by_key))
    boxes = {key: look(str(node.status))[1] for key, node in by_key.items()}
    boxes |= {UNKNOWN_SERVICES: look("unknown")[1]} | _outside(choreography, saga, route)
    lines = {
        (line.arrow.source, line.arrow.target): "taken undone" if line.arrow.is_compensation else "taken good"
        for line in layout.lines
        if route.has_taken(line.arrow)
    }
    return Graph(layout, Looks(boxes, lines), {key: f"#step-{key}" for key in by_key})


class _Route:
    """The events that a saga has seen, and which node emitted each."""

    def __init__(self, timeline: Timeline, choreography: Choreography, known: set[str]) -> None:
        self._known = known
        self._emitted_by: dict[str, set[str]] = {}
        self.events: set[str] = set()
        nodes = NodeIndex(choreography)
        for entry in timeline.entries:
            taken = None if entry.to_state == Note.IGNORED else entry.event_type  # such as an answer that came too late
            self.events |= {event for event in (taken, entry.emitted_type) if event}
            if entry.emitted_type and (node := nodes.node_of(entry)):
                self._emitted_by.setdefault(key_of(node.service, node.name), set()).add(entry.emitted_type)

    def has_taken(self, arrow: Arrow) -> bool:
        """Whether the arrow's source has emitted one of its events; any source, where it is unknown."""
        ends = [key.removeprefix("event:") for key in (arrow.source, arrow.target) if key.startswith("event:")]
        emitted = self._emitted_by.get(arrow.source, set()) if arrow.source in self._known else self.events
        return not emitted.isdisjoint([*arrow.labels, *ends])


def _outside(choreography: Choreography, saga: SagaContract, route: _Route) -> dict[str, str]:
    """Return the tones of the start, the answers and the ends that the saga has seen."""
    tones = {saga.starts_with: "good", saga.completes_with: "good", saga.fails_with: "bad"}
    tones |= dict.fromkeys(choreography.answers(saga), "good")
    return {event_key(event): tone for event, tone in tones.items() if event in route.events}


def _status_text(node: NodeProgress) -> str:
    sign, _, word = look(str(node.status))
    return f"{sign} {word}" + (f" {clock(node.at)}" if node.at and node.status is not Status.REMAINING else "")
