"""A saga's choreography as parts and arrows to lay out, and how each of them looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.console.diagrams.layout import Arrow, Layout, Part, arrange
from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.contract import SagaContract

#: The key of the services of which nobody knows what they hear and say.
UNKNOWN_SERVICES = "strangers"


@dataclass(frozen=True, slots=True)
class Looks:
    """The classes of boxes, by key, and of arrows, by source and target."""

    boxes: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def box(self, part: Part) -> str:
        """Return how a part looks."""
        return self.boxes.get(part.key, "")

    def line(self, arrow: Arrow) -> str:
        """Return how an arrow looks."""
        return self.lines.get((arrow.source, arrow.target), "")


@dataclass(frozen=True, slots=True)
class _Way:
    """An event's way from one key to another."""

    source: str
    target: str
    event: str
    is_back: bool


def key_of(service: str, name: str) -> str:
    """Return the key of a step or a compensation; names are a service's own."""
    return f"{service}.{name}"


def event_key(event: str) -> str:
    """Return the key of an event from or to the outside."""
    return f"event:{event}"


def drawn(
    choreography: Choreography,
    saga: SagaContract,
    *,
    told: Callable[[Node], str] = lambda _: "",
    counts: Mapping[str, int] | None = None,
    unknown_services: Sequence[str] = (),
) -> Layout:
    """Return a saga's graph.

    - `told`: what stands below a node's name. `counts`: how often each event was emitted.
    - `unknown_services`: services without a known contract; events without another consumer or emitter are theirs.
    """
    nodes = choreography.nodes_of(saga)
    ways = list(_ways(choreography, saga, has_unknown_services=bool(unknown_services)))
    known = counts or {}
    parts = [
        Part(
            key=_key(node),
            name=node.name,
            service=node.service,
            told=told(node),
            undoes=_key_of_step(node, nodes) if node.is_compensation else None,
        )
        for node in nodes
    ]
    parts += (
        [Part(key=UNKNOWN_SERVICES, name=", ".join(unknown_services), told="? unknown")] if unknown_services else []
    )
    outside = {key: way.event for way in ways for key in (way.source, way.target) if key == event_key(way.event)}
    parts += [Part(key=key, name=event, told=_times(known.get(event)), is_event=True) for key, event in outside.items()]
    return arrange(parts, list(_arrows(ways, known)))


def _ways(choreography: Choreography, saga: SagaContract, *, has_unknown_services: bool) -> Iterator[_Way]:
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
        is_back = edge.emitter is not None and (edge.emitter not in forward or edge.event in edge.emitter.refusals)
        yield _Way(source, target, edge.event, is_back)
    if has_unknown_services:
        for node, event in _unemitted(choreography, saga):
            yield _Way(UNKNOWN_SERVICES, _key(node), event, node.is_compensation)


def _arrows(ways: Sequence[_Way], counts: Mapping[str, int]) -> Iterator[Arrow]:
    """Yield an arrow for all that goes one way; events from and to the outside are boxes, and need no label."""
    joined: dict[tuple[str, str, bool], list[str]] = {}
    for way in ways:
        labels = joined.setdefault((way.source, way.target, way.is_back), [])
        if event_key(way.event) not in (way.source, way.target):
            labels += [line for line in (way.event, _times(counts.get(way.event))) if line]
    for (source, target, is_back), labels in joined.items():
        yield Arrow(source=source, target=target, labels=tuple(labels), is_back=is_back)


def _unemitted(choreography: Choreography, saga: SagaContract) -> list[tuple[Node, str]]:
    """Return the events that nodes wait for, and that nobody whom we know emits."""
    nodes = choreography.nodes_of(saga)
    emitted = {saga.starts_with, *(event for node in nodes for event in node.emits)}
    return [(node, event) for node in nodes for event in node.triggers if event not in emitted]


def _forward(choreography: Choreography, saga: SagaContract) -> list[Node]:
    """Return the steps on the way forward, those behind a stranger included."""
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
