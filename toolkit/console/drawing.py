"""A saga's choreography as parts and arrows to lay out, and how each of them looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from toolkit.console.layout import Arrow, Layout, Part, arrange
from toolkit.contract import SagaContract
from toolkit.graph import Choreography, Node


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
) -> Layout:
    """Return a saga's graph; `told` says what stands below a node's name, `counts` how often each event was emitted."""
    nodes = choreography.nodes_of(saga)
    forward = choreography.forward(saga)
    joined: dict[tuple[str, str, bool], list[str]] = {}
    outside: dict[str, str] = {}
    for edge in choreography.edges(saga):
        source = key_of(edge.emitter.service, edge.emitter.name) if edge.emitter else event_key(edge.event)
        target = key_of(edge.listener.service, edge.listener.name) if edge.listener else event_key(edge.event)
        is_back = edge.emitter is not None and (edge.emitter not in forward or edge.event in edge.emitter.refusals)
        outside |= {key: edge.event for key in (source, target) if key == event_key(edge.event)}
        labels = joined.setdefault((source, target, is_back), [])
        if not {source, target} & outside.keys():
            labels.append(edge.event)
    parts = [
        Part(
            key=key_of(node.service, node.name),
            name=node.name,
            service=node.service,
            told=told(node),
            undoes=_key_of_step(node, nodes) if node.is_compensation else None,
        )
        for node in nodes
    ]
    known = counts or {}
    parts += [
        Part(key=key, name=event, told=_times(known.get(event, 0)), is_event=True) for key, event in outside.items()
    ]
    arrows = [
        Arrow(
            source=source,
            target=target,
            labels=tuple(line for event in labels for line in (event, _times(known.get(event, 0))) if line),
            is_back=is_back,
        )
        for (source, target, is_back), labels in joined.items()
    ]
    return arrange(parts, arrows)


def _times(number: int) -> str:
    return f"{number:,}×" if number else ""  # noqa: RUF001  # a sign of multiplication is meant


def _key_of_step(node: Node, nodes: list[Node]) -> str | None:
    own = (each for each in nodes if each.name == node.step and each.service == node.service)
    return next((key_of(each.service, each.name) for each in own), None)
