"""One saga as its page tells it: a timeline in lanes, a graph, a sequence, put together from what all services know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from toolkit.console.diagrams.graph import UNKNOWN_SERVICES, Looks, drawn, event_key, key_of
from toolkit.console.diagrams.sequence import Sequence, is_closing, sequence_of
from toolkit.console.diagrams.shapes import Arrow, Layout
from toolkit.console.templating import clock, look
from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.events import SagaState
from toolkit.operations.views import SagaView
from toolkit.protocol.fence import StepState
from toolkit.protocol.log_entry import LogEntry, trace_of
from toolkit.protocol.timeline import Timeline
from toolkit.tracking.progress import NodeProgress, Progress

_ON_THE_WAY_BACK = (SagaState.COMPENSATING, SagaState.FAILED)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the timeline: an entry, or a node that is still to come, in its service's lane."""

    service: str
    name: str
    status: str
    is_back: bool
    entry: LogEntry | None = None
    node: NodeProgress | None = None
    attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """The saga's choreography, with what became of each step on it."""

    layout: Layout
    looks: Looks
    links: Mapping[str, str]


@dataclass(frozen=True)
class SagaDetails:
    """All that is known of one saga."""

    timeline: Timeline
    progress: Progress
    views: Mapping[str, SagaView]
    choreography: Choreography
    unknown_services: list[str]
    services: list[str]

    @property
    def is_known(self) -> bool:
        """Whether any service knows the saga."""
        return bool(self.timeline.entries) or any(not view.is_empty for view in self.views.values())

    @cached_property
    def rows(self) -> list[Row]:
        """The timeline: what was written, in the order of cause and effect."""
        return [self._row(entry) for entry in self.timeline.entries if not is_closing(entry)]

    @property
    def closing(self) -> dict[str, list[LogEntry]]:
        """What the services wrote when they were told of the saga's end, by service."""
        found: dict[str, list[LogEntry]] = {}
        for entry in self.timeline.entries:
            if is_closing(entry):
                found.setdefault(entry.service, []).append(entry)
        return found

    @cached_property
    def to_come(self) -> list[Row]:
        """What nobody has written anything of yet: what remains, and what nobody can be asked about."""
        names = {(row.service, row.name) for row in self.rows}
        return [
            Row(node.service, node.name, str(node.status), node.kind == "compensation", node=node)
            for node in self.progress.remaining
            if (node.service, node.name) not in names
        ]

    @property
    def dead_letters(self) -> list[dict[str, Any]]:
        """The saga's dead letters."""
        return [{"service": name} | row for name, view in self.views.items() for row in view.dead_letters]

    @property
    def outbox(self) -> list[dict[str, Any]]:
        """What waits to go out for the saga."""
        return [{"service": name} | row for name, view in self.views.items() for row in view.outbox]

    @property
    def overdue(self) -> list[dict[str, Any]]:
        """Its overdue steps."""
        return [{"service": name} | row for name, view in self.views.items() for row in view.overdue]

    @cached_property
    def graph(self) -> Graph | None:
        """The saga's graph, where any service tells its choreography."""
        saga = self.choreography.saga(str(self.timeline.saga_type))
        if saga is None:
            return None
        by_key = {key_of(node.service, node.name): node for node in self.progress.nodes}

        def status(node: Node) -> str:
            known = by_key.get(key_of(node.service, node.name))
            return _status_text(known) if known else ""

        layout = drawn(self.choreography, saga, status=status, unknown_services=self.unknown_services)
        tones = {key: look(str(node.status))[1] for key, node in by_key.items()} | {
            UNKNOWN_SERVICES: look("unknown")[1]
        }
        taken = {str(entry.emitted_type) for entry in self.timeline.entries if entry.emitted_type}
        taken |= {str(entry.event_type) for entry in self.timeline.entries if entry.event_type}
        lines = {
            (line.arrow.source, line.arrow.target): "taken undone" if line.arrow.is_compensation else "taken good"
            for line in layout.lines
            if self._is_taken(line.arrow, set(by_key), taken)
        }
        tones |= {
            event_key(event): tone
            for event, tone in ((saga.starts_with, "good"), (saga.completes_with, "good"), (saga.fails_with, "bad"))
            if event in taken
        }
        links = {key: f"#step-{key}" for key in by_key}
        return Graph(layout, Looks(tones, lines), links)

    @cached_property
    def sequence(self) -> Sequence:
        """Who told whom what, in order."""
        return sequence_of(self.timeline.entries, self.choreography, self.services)

    def trace_ids(self) -> list[str]:
        """The traces that the saga left; one, unless it was started under several."""
        return list(dict.fromkeys(trace for entry in self.timeline.entries if (trace := trace_of(entry))))

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return (
            self.timeline.as_dict()
            | self.progress.as_dict()
            | {"services": {name: asdict(view) for name, view in self.views.items()}}
        )

    def node_of(self, entry: LogEntry) -> Node | None:
        """Return the step or the compensation that wrote an entry."""
        own = self._nodes_by_step.get((entry.service, entry.step, entry.saga_type), [])
        taking = [node for node in own if entry.event_type in node.triggers]
        return next(iter(taking or [node for node in own if not node.is_compensation]), None)

    @cached_property
    def _nodes_by_step(self) -> dict[tuple[str, str, str], list[Node]]:
        found: dict[tuple[str, str, str], list[Node]] = {}
        for node in self.choreography.nodes:
            found.setdefault((node.service, node.step, node.saga.name), []).append(node)
        return found

    @cached_property
    def _last_entries(self) -> dict[tuple[str, str], LogEntry]:
        return {(each.service, each.step): each for each in self.timeline.entries}

    @cached_property
    def _emitted_by(self) -> dict[str, set[str]]:
        """The events that the saga's steps have emitted, by the step's key."""
        found: dict[str, set[str]] = {}
        for entry in self.timeline.entries:
            if entry.emitted_type and (node := self.node_of(entry)):
                found.setdefault(key_of(node.service, node.name), set()).add(str(entry.emitted_type))
        return found

    def _row(self, entry: LogEntry) -> Row:
        node = self.node_of(entry)
        is_refusal = entry.to_state == StepState.FAILED
        is_back = entry.saga_state in _ON_THE_WAY_BACK and not is_refusal
        told = next(
            (each for each in self.progress.nodes if node and (each.service, each.name) == (node.service, node.name)),
            None,
        )
        return Row(
            entry.service,
            node.name if node else entry.step,
            entry.to_state,
            is_back,
            entry=entry,
            node=told if entry is self._last_entries[entry.service, entry.step] else None,
            attempts=node.handler.attempts if node else None,
        )

    def _is_taken(self, arrow: Arrow, known: set[str], taken: set[str]) -> bool:
        """Whether the saga went along an arrow; where nobody knows who is at its beginning, if it was told at all."""
        ends = [key.removeprefix("event:") for key in (arrow.source, arrow.target) if key.startswith("event:")]
        emitted = self._emitted_by.get(arrow.source, set()) if arrow.source in known else taken
        return not emitted.isdisjoint([*arrow.labels, *ends])


def _status_text(node: NodeProgress) -> str:
    sign, _, word = look(str(node.status))
    return f"{sign} {word}" + (f" {clock(node.at)}" if node.at and str(node.status) not in ("remaining",) else "")
