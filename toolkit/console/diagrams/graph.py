"""A saga's choreography as parts and arrows to lay out, and the CSS classes of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.console.diagrams.layout import arrange
from toolkit.console.diagrams.shapes import Arrow, Layout, Part
from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.contract import SagaContract

#: The key of the part that stands for all services without a known contract.
UNKNOWN_SERVICES = "unknown services"


@dataclass(frozen=True, slots=True)
class Looks:
    """The CSS classes of boxes, by key, and of arrows, by source and target."""

    boxes: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def box(self, part: Part) -> str:
        """Return the classes of a part."""
        return self.boxes.get(part.key, "")

    def line(self, arrow: Arrow) -> str:
        """Return the classes of an arrow."""
        return self.lines.get((arrow.source, arrow.target), "")


@dataclass(frozen=True, slots=True)
class _Edge:
    """One event from one key to another."""

    source: str
    target: str
    event: str
    is_compensation: bool


def key_of(service: str, name: str) -> str:
    """Return the key of a step or a compensation; names are unique within a service only."""
    return f"{service}.{name}"


def event_key(event: str) -> str:
    """Return the key of an event from or to the outside."""
    return f"event:{event}"


def drawn(
    choreography: Choreography,
    saga: SagaContract,
    *,
    status: Callable[[Node], str] = lambda _: "",
    counts: Mapping[str, int] | None = None,
    unknown_services: Sequence[str] = (),
) -> Layout:
    """Return a saga's graph.

    - `status`: the text below a node's name. `counts`: how often each event was emitted.
    - `unknown_services`: services without a known contract; events without another consumer or emitter are theirs.
    """
    nodes = choreography.nodes_of(saga)
    edges = list(_edges(choreography, saga, has_unknown_services=bool(unknown_services)))
    known = counts or {}
    parts = [
        Part(
            key=_key(node),
            name=node.name,
            service=node.service,
            status=status(node),
            undoes=_key_of_step(node, nodes) if node.is_compensation else None,
        )
        for node in nodes
    ]
    if unknown_services:
        parts.append(Part(key=UNKNOWN_SERVICES, name=", ".join(unknown_services), status="? unknown"))
    outside = {key: edge.event for edge in edges for key in (edge.source, edge.target) if key == event_key(edge.event)}
    parts += [
        Part(key=key, name=event, status=_times(known.get(event)), is_event=True) for key, event in outside.items()
    ]
    return arrange(parts, list(_arrows(edges, known)))


def _edges(choreography: Choreography, saga: SagaContract, *, has_unknown_services: bool) -> Iterator[_Edge]:
    forward = _forward(choreography, saga) if has_unknown_services else choreography.forward(saga)
    ends = (saga.completes_with, saga.fails_with)
    for edge in choreography.edges(saga):
        outside = (
            UNKNOWN_SERVICES
            if has_unknown_services and edge.event not in ends and edge.emitter
            else event_key(edge.event)
        )
        source = _key(edge.emitter) if edge.emitter else outside
        target = _key(edge.listener) if edge.listener else outside
        is_refusal = edge.emitter is not None and edge.event in edge.emitter.refusals
        is_compensation = is_refusal or (edge.emitter is not None and edge.emitter not in forward)
        yield _Edge(source, target, edge.event, is_compensation)
    if has_unknown_services:
        for node, event in _unemitted(choreography, saga):
            yield _Edge(UNKNOWN_SERVICES, _key(node), event, node.is_compensation)


def _arrows(edges: Sequence[_Edge], counts: Mapping[str, int]) -> Iterator[Arrow]:
    """Yield one arrow for all edges with the same ends; events from and to the outside are boxes, and need no label."""
    joined: dict[tuple[str, str, bool], list[str]] = {}
    for edge in edges:
        labels = joined.setdefault((edge.source, edge.target, edge.is_compensation), [])
        if event_key(edge.event) not in (edge.source, edge.target):
            labels += [text for text in (edge.event, _times(counts.get(edge.event))) if text]
    for (source, target, is_compensation), labels in joined.items():
        yield Arrow(source=source, target=target, labels=tuple(labels), is_compensation=is_compensation)


def _unemitted(choreography: Choreography, saga: SagaContract) -> list[tuple[Node, str]]:
    """Return the events that nodes consume and no known node emits; answers come from outside."""
    nodes = choreography.nodes_of(saga)
    emitted = {saga.starts_with, *choreography.answers(saga), *(event for node in nodes for event in node.emits)}
    return [(node, event) for node in nodes for event in node.triggers if event not in emitted]


def _forward(choreography: Choreography, saga: SagaContract) -> list[Node]:
    """Return the steps of the forward path, those behind an unknown service included."""
    found = choreography.forward(saga)
    waiting = [node for node, _ in _unemitted(choreography, saga) if not node.is_compensation]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.append(node)
            waiting += [each for each in choreography.listeners(node.success, saga) if not each.is_compensation]
    return found


def _key(node: Node) -> str:
    return key_of(node.service, node.name)


def _times(number: int | None) -> str:
    return f"{number:,}×" if number else ""  # noqa: RUF001  # a sign of multiplication is meant


def _key_of_step(node: Node, nodes: Sequence[Node]) -> str | None:
    own = (each for each in nodes if each.name == node.step and each.service == node.service)
    return next((_key(each) for each in own), None)
